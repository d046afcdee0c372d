"""Reading what torch and Megatron-Core keep beside tensors, such that a file can never run anything.

Both write pickles: ``.metadata`` (which tensor lies where) and objects inside the files of tensors. A pickle is a
program. Here ``.metadata`` is read by an unpickler that knows the few classes it may name and refuses all others, and
everything else by torch's own restricted loader (``weights_only``). No Megatron-Core.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from megatron_salamandra.run_directory import CheckpointError

_TORCH = "torch.distributed.checkpoint"
_ALLOWED = {
    "collections": {"OrderedDict"},
    "torch": {"Size"},  # and dtypes
    "torch.serialization": {"_get_layout"},
    f"{_TORCH}.filesystem": {"_StorageInfo"},
    f"{_TORCH}.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    f"{_TORCH}.planner": {"BytesIOWriteData", "SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"},
}
"""Names that a ``.metadata`` of torch 2.8 to 2.13 uses."""
_OPAQUE = {
    ("megatron.core.dist_checkpointing.strategies.torch", name) for name in ("MCoreMetadata", "MCoreSavePlan")
}
_COMMON = "common.pt"
_ARCHIVE = b"PK\x03\x04"
_ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class _Opaque:
    """Stands in for an object that nobody here has use for."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _member(enumeration: Any, name: Any) -> Enum:
    """All that ``getattr`` may be asked for: Python 3.11.0 to 3.11.3 write members of an enumeration as such a call."""
    if isinstance(enumeration, type) and issubclass(enumeration, Enum) and name in enumeration.__members__:
        return enumeration[name]
    raise pickle.UnpicklingError(f"refusing to take {name!r} of {enumeration!r}")


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if (module, name) in _OPAQUE:
            return _Opaque
        if module.partition(".")[0] == "pathlib" and name in ("PosixPath", "PurePosixPath"):
            return Path
        if name in _ALLOWED.get(module, ()) or (
            module == "torch" and isinstance(vars(torch).get(name), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refusing to load {module}.{name}")


def load_metadata(path: Path) -> Metadata:
    """Read the metadata file of a torch_dist checkpoint.

    Raises:
        CheckpointError: missing, damaged, not such a file, or one that names what it has no business with.
    """
    try:
        with path.open("rb") as stream:
            metadata = _MetadataUnpickler(stream).load()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: missing; shards/ is not a torch_dist checkpoint\n  use another step directory"
        ) from error
    # A damaged pickle can raise almost anything.
    except Exception as error:
        raise CheckpointError(
            f"{path}: unreadable checkpoint metadata: {type(error).__name__}: {error}\n"
            "  the file is truncated or damaged; use another step directory"
        ) from error
    if not isinstance(metadata, Metadata) or metadata.storage_data is None:
        raise CheckpointError(f"{path}: not the metadata of a torch_dist checkpoint")
    try:
        _refuse_other_places(path, metadata)
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: unreadable checkpoint metadata: {error}; use another step directory"
        ) from error
    return metadata


def check_pieces(directory: Path, metadata: Metadata, names: Iterable[str]) -> None:
    """Make sure that what is loaded from files of tensors is no larger than the files say.

    torch unpacks archives, whatever they were made with; it writes them without compression.

    Args:
        directory: of the tensors, ``shards/``.
        names: of the files in it to look into.
    Raises:
        CheckpointError: a piece is compressed, or is no archive.
    """
    wanted = set(names)
    if _COMMON in wanted and (file := directory / _COMMON).is_file():
        with file.open("rb") as stream:
            _check_archive(stream, file, file.stat().st_size)
    pieces = [place for place in metadata.storage_data.values() if place.relative_path in wanted]
    pieces.sort(key=lambda place: (place.relative_path, place.offset))
    for name, its_pieces in groupby(pieces, key=lambda place: place.relative_path):
        file = directory / name
        with file.open("rb") as stream:
            for place in its_pieces:
                stream.seek(place.offset)
                if stream.read(len(_ARCHIVE)) == _ARCHIVE:
                    piece = _Piece(stream, place.offset, place.length)
                    _check_archive(cast(IO[bytes], piece), file, place.length)


def _check_archive(stream: IO[bytes], file: Path, length: int) -> None:
    """Make sure that an archive of torch unpacks to no more than the ``length`` bytes that it has.

    Raises:
        CheckpointError: it is compressed, or damaged.
    """
    try:
        members = zipfile.ZipFile(stream).infolist()
    except Exception as error:  # of damaged archives there is no end
        raise CheckpointError(
            f"{file} is damaged, it holds an archive that cannot be read: {error}\n  use another step directory"
        ) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or (
        sum(member.file_size for member in members) > length
    ):
        raise CheckpointError(
            f"{file} holds a compressed archive, which no checkpoint does: it may unpack to any size\n"
            "  use another step directory"
        )


class _Piece(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, stream: IO[bytes], start: int, length: int) -> None:
        self._stream, self._start, self._length, self._at = stream, start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._start + self._at)
        contents = self._stream.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(contents)] = contents
        self._at += len(contents)
        return len(contents)


def _refuse_other_places(path: Path, metadata: Metadata) -> None:
    """Refuse metadata that lead out of their directory, or to more than its files hold.

    Raises:
        CheckpointError: they do.
    """
    sizes: dict[str, int] = {}
    for index, place in metadata.storage_data.items():
        name = place.relative_path
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(f"{path}: {index.fqn} lies in {name!r}, which is no file of the checkpoint")
        file = path.parent / name
        if name not in sizes:
            sizes[name] = file.stat().st_size if file.is_file() else 0
        if place.offset < 0 or place.length < 0 or place.offset + place.length > sizes[name]:
            raise CheckpointError(
                f"{path}: {index.fqn} is said to lie in bytes {place.offset} to {place.offset + place.length} of "
                f"{file}, which has {sizes[name]}\n  use another step directory"
            )
    held = sum(sizes.values())
    for key, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            size = math.prod(entry.size) * entry.properties.dtype.itemsize
            if size > held or min(entry.size, default=0) < 0:
                raise CheckpointError(
                    f"{path}: {key} is said to have {size:,} bytes, and all files have {held:,}\n"
                    "  use another step directory"
                )


@contextmanager
def weights_only() -> Iterator[None]:
    """In the block ``torch.load`` reads tensors and plain containers only, also where Megatron-Core or torch call it.

    torch's loader for non-tensor objects asks for everything (``weights_only=False`` in its DefaultLoadPlanner); the
    environment variable is the only thing that overrules it.
    """
    before = os.environ.get(_ONLY_WEIGHTS)
    os.environ[_ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ONLY_WEIGHTS]
        else:
            os.environ[_ONLY_WEIGHTS] = before
