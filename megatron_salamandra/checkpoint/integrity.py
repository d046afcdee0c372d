"""All ranks prove a checkpoint together before any of them loads it, and go back to an earlier one if it is damaged."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from megatron_salamandra.checkpoint.local_copies import LocalCopies
from megatron_salamandra.checkpoint.metadata import check_pieces, load_metadata
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.run_directory import (
    SHARDS,
    CheckpointError,
    DamagedCheckpointError,
    Manifest,
    complete_checkpoints,
    read_manifest,
    set_aside,
)

_METADATA = f"{SHARDS}/.metadata"
LOGGER = logging.getLogger("salamandra")
_WRITTEN_BY = re.compile(rf"{SHARDS}/__(\d+)_")


@dataclass(frozen=True)
class _Finding:
    text: str
    damaged: bool

    def error(self) -> CheckpointError:
        return (DamagedCheckpointError if self.damaged else CheckpointError)(self.text)


def check_together(directory: Path) -> None:
    """Compare every file of a checkpoint with its manifest, each on one rank; collective.

    A rank takes the files that the rank of its number wrote, which are those it loads in the same layout: they are then
    in its host's memory, so that together both read the disk once.

    Raises:
        CheckpointError: on all ranks alike; names the first file that is missing, too many, altered or unreadable.
    """
    with PROGRESS.inside(Part.LOAD, directory.name):
        _check_together(directory)


def _check_together(directory: Path) -> None:
    told: list[Any] = [None, None]
    if dist.get_rank() == 0:
        told[0], told[1] = _attempt(lambda: _opened(directory))
    dist.broadcast_object_list(told, src=0)
    manifest, finding = told
    if finding is None:
        others = (name for name in manifest.files if name != _METADATA)  # which rank 0 has compared already
        mine = [name for n, name in enumerate(others) if _rank_for(name, n) == dist.get_rank()]
        _, finding = _attempt(lambda: _prove(manifest, mine))
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, finding)
        finding = next((item for item in found if item is not None), None)
    if finding is not None:
        raise finding.error()


def newest_intact(
    root: Path, passed_over: Callable[[Path, CheckpointError], object], local: LocalCopies | None = None
) -> Path | None:
    """The newest checkpoint below ``root`` that is as it was written, or None if there are none at all; collective.

    Returned is its copy on this node, if there is an intact one: nodes may read from different places. Whatever may be
    read has been proved in the place it is read from.

    Damaged ones after it are renamed to ``damaged-step-N``, so that nothing takes them for the newest again: only the
    owner of the run may call this.

    Args:
        passed_over: called on rank 0 with each checkpoint that was not used, and why.
        local: copies on this node.
    Raises:
        CheckpointError: there are checkpoints, and none is intact.
    """
    # Rank 0 decides: file systems of clusters show a new directory to every node in its own time.
    told: list[Any] = [complete_checkpoints(root) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(told, src=0)
    failed: list[tuple[Path, CheckpointError]] = []
    for directory in reversed(told[0]):
        try:
            place = _proved_place(directory, local)
        except CheckpointError as error:
            failed.append((directory, error))
            continue
        if dist.get_rank() == 0:
            for other, why in failed:
                passed_over(other, why)
                if isinstance(why, DamagedCheckpointError):
                    _set_aside(other)
        return place
    if failed:
        reasons = "\n  ".join(str(why).replace("\n", " ") for _, why in failed)
        raise CheckpointError(
            f"{root}: no checkpoint is intact, and a new start would lose the run\n  {reasons}"
        )
    return None


def _proved_place(directory: Path, local: LocalCopies | None) -> Path:
    """Where this rank reads a checkpoint, when all that ranks may read of it has been proved; collective.

    Raises:
        CheckpointError: on all ranks alike; something is to be read in ``directory``, and that is not intact.
    """
    copy, whole = (None, False) if local is None else _proved_copy(directory, local)
    apart = torch.tensor([whole], dtype=torch.int32, device=torch.cuda.current_device())
    dist.all_reduce(apart, op=dist.ReduceOp.MIN)
    if not apart.item():  # a rank reads there: all, or what its node's copy has links for
        check_together(directory)
    return copy or directory


def _proved_copy(directory: Path, local: LocalCopies) -> tuple[Path | None, bool]:
    """This node's copy of a checkpoint, None if there is no intact one, and whether it has all files; collective.

    The ranks of each node prove together what lies on the node: no other node can.
    """
    with PROGRESS.inside(Part.LOAD, directory.name):
        copy, _ = _attempt(lambda: local.copy_of(directory))
        # Where hosts share a name, the number of the directory still tells their disks apart.
        node = None if copy is None else (socket.gethostname(), str(copy), os.stat(copy).st_ino)
        nodes: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(nodes, node)
        whole, finding = False, None
        if copy is not None:
            peers = [rank for rank, other in enumerate(nodes) if other == node]
            share, shares = peers.index(dist.get_rank()), len(peers)
            whole, finding = _attempt(lambda: _prove_copy(copy, directory, share, shares))
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, finding)
        if copy is None:
            return None, False
        finding = next((found[rank] for rank in peers if found[rank] is not None), None)
        if finding is not None:
            LOGGER.warning("the local copy is not used: %s", finding.text)
            return None, False
        return copy, whole


def _prove_copy(copy: Path, directory: Path, share: int, shares: int) -> bool:
    """Prove one of ``shares`` shares of the files that lie in a copy; says whether all of the checkpoint do."""
    manifest = read_manifest(copy)
    manifest.check_presence(linked=directory)
    manifest.check_contents([_METADATA])
    load_metadata(copy / _METADATA)
    here = [name for name in manifest.files if not (copy / name).is_symlink()]
    _prove(manifest, [name for name in here if name != _METADATA][share::shares])
    return len(here) == len(manifest.files)


def _opened(directory: Path) -> Manifest:
    """The manifest of a checkpoint whose names and sizes match; its ``.metadata`` does not lead anywhere."""
    manifest = read_manifest(directory)
    manifest.check_presence()
    manifest.check_contents([_METADATA])
    load_metadata(directory / _METADATA)
    return manifest


def _prove(manifest: Manifest, names: Sequence[str]) -> None:
    """Compare files with the manifest, and see that loading them takes no more than they hold."""
    manifest.check_contents(names)
    shards = manifest.directory / SHARDS
    own = [Path(name).name for name in names if Path(name).parent == Path(SHARDS)]
    if own:
        check_pieces(shards, load_metadata(shards / ".metadata"), own)


def _attempt(action: Callable[[], Any]) -> tuple[Any, _Finding | None]:
    try:
        return action(), None
    except CheckpointError as error:
        return None, _Finding(str(error), isinstance(error, DamagedCheckpointError))
    except Exception as error:  # the other ranks wait for the answer
        return None, _Finding(f"{type(error).__name__}: {error}", damaged=False)


def _rank_for(name: str, number: int) -> int:
    match = _WRITTEN_BY.match(name)
    return (int(match.group(1)) if match else number) % dist.get_world_size()


def _set_aside(directory: Path) -> None:
    try:
        LOGGER.warning("%s is now %s", directory, set_aside(directory).name)
    except OSError as error:
        LOGGER.warning("%s cannot be renamed: %s", directory, error.strerror)
