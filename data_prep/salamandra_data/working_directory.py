"""Directories for unfinished work: hidden, removed at the end, and found again if a killed run left them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import write_error


@contextmanager
def working_directory(parent: Path, purpose: str) -> Iterator[Path]:
    """A new hidden directory in ``parent``, removed with all it holds when the block ends.

    Its name holds ``purpose``, host and process, by which those that a killed run of this host left are found and
    removed now.

    Raises:
        DataError: ``parent`` cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent, purpose)
        prefix = f".{purpose}-{socket.gethostname()}-{os.getpid()}-"
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise write_error(Path(error.filename or parent), error) from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def remove_abandoned(parent: Path, purpose: str) -> None:
    """Remove the directories for ``purpose`` in ``parent`` whose processes, of this host, are gone."""
    name = re.compile(rf"\.{re.escape(purpose)}-{re.escape(socket.gethostname())}-(\d+)-\w+")
    for path in parent.glob(f".{purpose}-*"):
        match = name.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
