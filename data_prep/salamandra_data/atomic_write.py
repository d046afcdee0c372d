"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from salamandra_data.errors import DataError
from salamandra_data.storage import Location

_HASH_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path`` that takes its name when the block ends well.

    The contents are on the disk before the name appears. If the block raises, the temporary
    file is removed and whatever was at ``path`` stays.

    Raises:
        DataError: the system refused to write (full disk, permissions).
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        publish(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, contents: bytes) -> None:
    """Replace ``path`` by ``contents`` in one step."""
    with atomic_file(path) as stream:
        stream.write(contents)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished, synced file its final name, and make the name itself durable."""
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names of the files in a directory durable."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_error(path: Path, error: OSError) -> DataError:
    """A DataError that says which file could not be written and what would help."""
    reason = error.strerror or str(error)
    return DataError(
        f"{path}: cannot be written: {reason}\n  nothing incomplete was left under this name; "
        "free space or choose another place, then run the command again"
    )


def sha256_of_file(path: Location) -> str:
    """Hexadecimal SHA-256 of a whole file, read in blocks."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
