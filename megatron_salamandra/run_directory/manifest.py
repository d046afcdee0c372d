"""The manifest of a checkpoint: which files it has, how long they are, and their checksums.

Format 2 has an XXH3-128 for each block of a file, and one of the manifest itself. Format 1, which versions before 0.2
wrote, has a CRC-32 of each file; it is still read. Checksums are against accidents: whoever can write a file can write
its checksum as well, so nothing that is read from a checkpoint may execute anything (``checkpoint/metadata.py``).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.run_directory.checkpoint_state import CheckpointError
from megatron_salamandra.run_directory.checkpoints import MANIFEST, SHARDS, STATE
from megatron_salamandra.run_directory.layout import CONFIG

FORMAT = "salamandra-checkpoint-2"
FORMAT_OF_0_1 = "salamandra-checkpoint-1"
REMEDY = "use an earlier checkpoint, or another copy of this one"
BLOCK_BYTES = 1 << 26
"""What one checksum stands for: small enough to say where a file is damaged, large enough for a short manifest."""
REQUIRED = (CONFIG, STATE, f"{SHARDS}/.metadata")
"""What every checkpoint has."""
TENSORS = ".distcp"
"""How the names of files of tensors end."""
_READ_BYTES = 1 << 22
_THREADS = 4
_OWN_SUM = "xxh3_128"


class DamagedCheckpointError(CheckpointError):
    """What is on disk is not what was written; unlike a disk that cannot be read, it will not pass."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes:
        directory: of the checkpoint.
        files: size and checksums of each file, by its path relative to ``directory``.
        block_bytes: what each checksum stands for; None where one stands for the whole file.
    """

    directory: Path
    files: Mapping[str, Mapping[str, Any]]
    block_bytes: int | None

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(int(entry["bytes"]) for entry in self.files.values())

    def check_presence(self, linked: Path | None = None) -> None:
        """Compare names and sizes.

        Args:
            linked: a checkpoint whose files of tensors may stand for those of the same name here, as links to them.
        Raises:
            DamagedCheckpointError: a file is missing, too many, of another size, or no file of the directory.
        """
        home = self.directory.resolve()
        for name, expected in self.files.items():
            file = self.directory / name
            try:
                size = file.stat().st_size
            except FileNotFoundError as error:
                raise DamagedCheckpointError(f"{file} is missing; {REMEDY}") from error
            except OSError as error:
                raise CheckpointError(f"{file} cannot be read: {error.strerror}; {REMEDY}") from error
            if not file.is_file() or not (
                file.resolve().is_relative_to(home) or _stands_for(file, name, linked)
            ):
                raise DamagedCheckpointError(
                    f"{file} is no file of the checkpoint: it leads elsewhere, or is a pipe or a device; {REMEDY}"
                )
            if size != expected["bytes"]:
                raise DamagedCheckpointError(
                    f"{file} has {size} bytes instead of {expected['bytes']}; {REMEDY}"
                )
        for path in self.directory.rglob("*"):
            name = str(path.relative_to(self.directory))
            # NFS keeps what is deleted while it is open under names of its own.
            if path.is_file() and name not in self.files and name != MANIFEST and path.name[:4] != ".nfs":
                raise DamagedCheckpointError(
                    f"{path} is not in the checkpoint's {MANIFEST}: it is of another checkpoint, or was put there later"
                    "\n  move it away"
                )

    def check_contents(self, names: Iterable[str] | None = None) -> None:
        """Compare checksums, several files at a time.

        Args:
            names: of the files; None means all.
        Raises:
            CheckpointError: names the first file that is altered or cannot be read, and where.
        """
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="checksum") as threads:
            for _ in threads.map(self._check_file, self.files if names is None else names):
                pass

    def _check_file(self, name: str) -> None:
        file, expected = self.directory / name, self.files[name]
        try:
            if self.block_bytes is None:
                found: list[Any] = [_crc32_of(file)]
                wanted: list[Any] = [expected["crc32"]]
            else:
                found, wanted = _block_sums(file, self.block_bytes), list(expected["xxh3_128"])
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}; {REMEDY}") from error
        if found == wanted:
            return
        where = ""
        if self.block_bytes is not None and len(wanted) > 1:
            block = next(
                (n for n, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), 0
            )
            where = f" in bytes {block * self.block_bytes} to {(block + 1) * self.block_bytes}"
        raise DamagedCheckpointError(f"{file} does not have its recorded checksum{where}; {REMEDY}")


def _stands_for(file: Path, name: str, linked: Path | None) -> bool:
    """Whether a file of tensors is a link to the one of the same name in ``linked``, and leads nowhere else."""
    if linked is None or not file.is_symlink() or file.suffix != TENSORS:
        return False
    target = (linked / name).resolve()
    return file.resolve() == target and target.is_relative_to(linked.resolve())


def describe_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and checksums of files, by their path relative to ``directory``."""
    return {
        name: {
            "bytes": (directory / name).stat().st_size,
            "xxh3_128": _block_sums(directory / name, BLOCK_BYTES),
        }
        for name in names
    }


def write_manifest(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the manifest; everything it names must be on disk already."""
    contents = {"format": FORMAT, "block_bytes": BLOCK_BYTES, "files": dict(sorted(files.items()))}
    atomic_write_bytes(directory / MANIFEST, _text_of(contents | {_OWN_SUM: _sum_of(contents)}))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, is damaged, or of a format that this version does not know.
    """
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; {REMEDY}") from error
    try:
        contents: Any = json.loads(raw)
        files = {str(name): dict(entry) for name, entry in contents["files"].items()}
        kind = str(contents["format"])
        block_bytes = int(contents["block_bytes"]) if kind == FORMAT else None
        key = "crc32" if block_bytes is None else "xxh3_128"
        sound = (
            all(isinstance(entry["bytes"], int) and key in entry for entry in files.values())
            and not any(Path(name).is_absolute() or ".." in Path(name).parts for name in files)
            and (block_bytes is None or block_bytes > 0)
        )
    # What a flipped bit makes of JSON can fail anywhere.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} cannot be read: {error!r}; {REMEDY}") from error
    if kind not in (FORMAT, FORMAT_OF_0_1):
        raise DamagedCheckpointError(
            f"{path}: its format is {kind!r}; this version reads {FORMAT!r} and {FORMAT_OF_0_1!r}"
        )
    if kind == FORMAT:
        own = contents.pop(_OWN_SUM, None)
        # Compared as text too, so that not even a space may change.
        sound = sound and own == _sum_of(contents) and raw == _text_of(contents | {_OWN_SUM: own})
    if not sound:
        raise DamagedCheckpointError(f"{path} is not as it was written; {REMEDY}")
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise DamagedCheckpointError(
            f"{path} does not list {', '.join(missing)}, which every checkpoint has; {REMEDY}"
        )
    return Manifest(directory, files, block_bytes)


def verify_checkpoint(directory: Path, *, checksums: bool = True) -> int:
    """Compare a checkpoint with its manifest and return its size in bytes.

    Args:
        checksums: False compares names and sizes only, which is enough for a listing.
    Raises:
        CheckpointError: names the first file that is missing, too many, cut short or altered.
    """
    manifest = read_manifest(directory)
    manifest.check_presence()
    if checksums:
        manifest.check_contents()
    return manifest.bytes


def _text_of(contents: Mapping[str, Any]) -> bytes:
    return json.dumps(contents, indent=1).encode()


def _sum_of(contents: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(_text_of(contents))


class BlockSums:
    """Checksums of a file's blocks, made while its contents pass by; xxhash lets other threads work meanwhile."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = self._left = block_bytes
        self._sum = xxhash.xxh3_128()
        self._sums: list[str] = []

    def update(self, contents: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        rest = memoryview(contents).cast("B")
        while rest:
            piece, rest = rest[: self._left], rest[self._left :]
            self._sum.update(piece)
            self._left -= len(piece)
            if self._left == 0:
                self._end_block()

    def all(self) -> list[str]:
        """The checksums; the file has ended."""
        if self._left < self._block_bytes:
            self._end_block()
        return self._sums

    def _end_block(self) -> None:
        self._sums.append(self._sum.hexdigest())
        self._sum, self._left = xxhash.xxh3_128(), self._block_bytes


def _block_sums(path: Path, block_bytes: int) -> list[str]:
    """XXH3-128 of each block of a file, read once."""
    sums = BlockSums(block_bytes)
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(_READ_BYTES):
            sums.update(piece)
    return sums.all()


def _crc32_of(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            value = zlib.crc32(block, value)
    return value
