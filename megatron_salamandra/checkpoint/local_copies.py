"""Copies of the newest checkpoints on each node's own disk: written first, uploaded in the background, loaded first.

::

    LOCAL_DIR/RUN-1a2b3c4d/
      step-00000020/            tensors that this node wrote, links to those of others in the run, and everything else
      .partial-step-00000030/   a save that is running

A checkpoint is one only in the run directory, when everything is there and its manifest tells the checksums of what was
written here. So a local copy never decides what a run resumes from; it is another place to read the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import xxhash

from megatron_salamandra.checkpoint.background import BackgroundWork
from megatron_salamandra.checkpoint.disk import Disk, SaveError, Stage
from megatron_salamandra.checkpoint.save_plan import Item
from megatron_salamandra.checkpoint.tensor_files import Written, write_tensor_files
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.run_directory import (
    MANIFEST,
    SHARDS,
    TENSORS,
    BlockSums,
    complete_checkpoints,
    delete_checkpoint,
    drop_partial,
    make_partial,
    publish_partial,
    read_manifest,
    step_of,
)

LOGGER = logging.getLogger("salamandra")
_READ_BYTES = 1 << 22
_RETRY_SECONDS = 5.0
"""For how long the local disk is asked again: there is another way."""
_UPLOADS = 4
"""Files that a rank copies at the same time."""


class LocalCopies:
    """The copies of one run on this node. Its first rank looks after the directory."""

    def __init__(self, local_dir: Path, run: Path, keep: int, local_rank: int) -> None:
        """Nothing is written yet.

        Args:
            local_dir: on a disk of each node.
            run: the run directory; others share ``local_dir``.
            keep: how many copies there may be at once.
            local_rank: of this rank on its node.
        """
        path = os.path.abspath(run)
        self.root = local_dir / f"{Path(path).name}-{xxhash.xxh3_64_hexdigest(path.encode())[:8]}"
        self._keep = keep
        self._leads = local_rank == 0
        self._keeping: BackgroundWork | None = None

    def place(self, partial: Path) -> Path:
        """Where the save that is assembled in ``partial`` lies on this node."""
        return self.root / partial.parent.name / partial.name

    def write(
        self,
        files: Sequence[Sequence[Item]],
        partial: Path,
        step: int,
        rank: int,
        disk: Disk,
        retry_seconds: float,
    ) -> Written | None:
        """Write a rank's tensors here and upload them; None if the local disk refuses, and nothing of them is left.

        Args:
            files: items of each file; tensors on the host.
            disk: where the checkpoint is assembled.
            retry_seconds: for how long the local disk may be asked again, if that is less than we would.
        Raises:
            SaveError: they are here, and cannot be uploaded.
        """
        here = Disk(min(retry_seconds, _RETRY_SECONDS))
        try:
            self.begin(partial, step, here)
            written = write_tensor_files(files, self.place(partial), rank, here, Stage.LOCAL)
        except SaveError as error:
            LOGGER.warning("tensors go straight to %s: %s", partial.parent.parent, error)
            self.drop_tensors(partial, rank)
            return None
        self.upload(written, partial, disk)
        return replace(written, retries=written.retries + disk.retries)

    def begin(self, partial: Path, step: int, disk: Disk) -> None:
        """Make room and the directory for the save of ``step``.

        Raises:
            SaveError: the local disk refuses.
        """
        place = self.place(partial)

        def make() -> None:
            if self._leads:
                make_partial(place)
                copies = complete_checkpoints(self.root)
                # A run that went back to an earlier step leaves copies of steps that it will save anew.
                earlier = [copy for copy in copies if step_of(copy) < step]
                stale = [copy for copy in copies if step_of(copy) >= step]
                for copy in (*stale, *earlier[: -(self._keep - 1) or None]):
                    delete_checkpoint(copy)

        disk.attempt(Stage.LOCAL, place, make)

    def drop(self, partial: Path) -> None:
        """Remove what is left of a save."""
        if self._leads:
            drop_partial(self.place(partial))

    def drop_tensors(self, partial: Path, rank: int) -> None:
        """Remove what a rank has written of a save, all or half of it."""
        for file in (self.place(partial) / SHARDS).glob(f"__{rank}_*{TENSORS}"):
            with contextlib.suppress(OSError):
                file.unlink()

    def upload(self, written: Written, partial: Path, disk: Disk) -> None:
        """Copy this rank's files to where the checkpoint is assembled, and prove on the way that they are as written.

        Raises:
            SaveError: a disk refuses, or a file is not as it was written.
        """
        place = self.place(partial)

        def copy(name: str) -> None:
            entry = written.files[name]
            disk.attempt(
                Stage.UPLOAD, partial / name, lambda: _copy(place / name, partial / name, entry["xxh3_128"])
            )

        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload") as threads:
            list(threads.map(copy, written.files))

    def keep(self, partial: Path, final: Path, disk: Disk) -> None:
        """Make a copy of the checkpoint of what was written here: the rest is copied, other nodes' tensors are linked.

        Args:
            final: the checkpoint.
        Raises:
            SaveError: a disk refuses; then there is no copy on this node.
        """
        place = self.place(partial)
        if not self._leads or not place.is_dir():
            return

        def fill() -> None:
            files = read_manifest(final).files
            for name in (*files, MANIFEST):
                here, there = place / name, final / name
                if here.suffix != TENSORS:
                    here.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write_bytes(here, there.read_bytes())
                elif not _has_size(here, files[name]["bytes"]):
                    here.parent.mkdir(parents=True, exist_ok=True)
                    here.unlink(missing_ok=True)
                    here.symlink_to(os.path.abspath(there))
            if (copy := self.root / final.name).exists():
                delete_checkpoint(copy)
            publish_partial(place, copy)

        disk.attempt(Stage.LOCAL, place, fill)

    def start_keeping(self, partial: Path, final: Path, retry_seconds: float) -> None:
        """:meth:`keep`, in a process beside training; failing costs the copy."""

        def act() -> None:
            try:
                self.keep(partial, final, Disk(retry_seconds))
            except SaveError as error:
                LOGGER.warning("there is no local copy of %s: %s", final.name, error)
                self.drop(partial)

        self._keeping = BackgroundWork(act, "the process that keeps a local copy")

    def finish_keeping(self, patience_seconds: float) -> None:
        """Wait until the copy is there; one that is not there in time is given up."""
        if self._keeping is not None:
            if self._keeping.answer(patience_seconds) is None:
                self._keeping.kill()
            self._keeping = None

    def copy_of(self, checkpoint: Path) -> Path | None:
        """The copy of a checkpoint on this node; None if there is none, or one of other contents."""
        copy = self.root / checkpoint.name
        try:
            same = (copy / MANIFEST).read_bytes() == (checkpoint / MANIFEST).read_bytes()
        except OSError:
            return None
        return copy if same else None


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.lstat().st_size == size and not file.is_symlink()
    except FileNotFoundError:
        return False


def _copy(source: Path, target: Path, sums: list[str]) -> None:
    seen = BlockSums()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while piece := reader.read(_READ_BYTES):
            seen.update(piece)
            writer.write(piece)
        os.fsync(writer.fileno())
    if seen.all() != sums:
        raise OSError(errno.EIO, f"{source} is not as it was written")
