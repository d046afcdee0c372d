"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from megatron_salamandra.foundation.errors import UserError


class WriteError(UserError):
    """The system refused to write a file: a full disk, permissions, a name that is taken."""


_USUAL_MODE = 0o666
"""Of new files, less what the umask takes."""


@contextmanager
def atomic_file(path: Path, *, mode: int = _USUAL_MODE) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path`` that takes its name when the block ends well.

    The contents are on the disk before the name appears. If the block raises, the temporary
    file is removed and whatever was at ``path`` stays.

    Args:
        path: of the file.
        mode: permissions that it has from its first moment on, less the umask; those of a file that it replaces
            do not count.
    Raises:
        WriteError: the system refused to write (full disk, permissions).
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode != _USUAL_MODE:
            temporary.unlink(
                missing_ok=True
            )  # one that a killed process of the same number left keeps its own mode
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        publish(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # what prevented the file prevents this as well, and is told already
            temporary.unlink()


def atomic_write_bytes(path: Path, contents: bytes, *, mode: int = _USUAL_MODE) -> None:
    """Replace ``path`` by ``contents`` in one step; ``mode`` is as for :func:`atomic_file`."""
    with atomic_file(path, mode=mode) as stream:
        stream.write(contents)


def atomic_write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8 in one step."""
    atomic_write_bytes(path, text.encode())


def publish(temporary: Path, path: Path) -> None:
    """Give a finished, synced file its final name, and make the name itself durable."""
    os.replace(temporary, path)
    sync_directory(path.parent)


def publish_directory(temporary: Path, path: Path) -> None:
    """Give a finished directory its final name, in place of a directory that has it.

    Its files are on the disk before the name appears. A directory that is replaced keeps its name until then, and is
    removed after.

    Args:
        temporary: a directory of files on the file system of ``path``.
    Raises:
        OSError: the system refused; what was at ``path`` is there again.
    """
    for file in temporary.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    previous = path.with_name(f".{path.name}.previous-{os.getpid()}")
    replaced = path.exists()
    if replaced:
        path.rename(previous)
    try:
        temporary.rename(path)
    except OSError:
        if replaced:
            previous.rename(path)
        raise
    sync_directory(path.parent)
    if replaced:
        shutil.rmtree(previous)


def sync_directory(directory: Path) -> None:
    """Make the names of the files in a directory durable."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_error(path: Path, error: OSError) -> WriteError:
    """A WriteError that says which file could not be written and what would help."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return WriteError(
            f"{path}: cannot be written: a file is in the way where a directory is needed\n  choose another place"
        )
    reason = error.strerror or str(error)
    return WriteError(
        f"{path}: cannot be written: {reason}\n  nothing incomplete was left under this name; "
        "free space or choose another place, then run the command again"
    )
