"""One command at a time in a directory."""

from __future__ import annotations

import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import write_error
from megatron_salamandra.foundation.errors import UserError

LOCK = ".lock"
"""Name of the file in the directory; it says who holds it."""

_held: set[int] = set()


class DirectoryInUse(UserError):
    """Another process writes into the directory; the message names it."""


@contextmanager
def sole_use(
    directory: Path, remedy: str = "wait until that ends, or choose another --out"
) -> Iterator[None]:
    """Keep every other command out of ``directory`` while the block runs.

    The lock is the kernel's, so it ends with the process that holds it, however that ends. It holds on all machines
    where the file system has locks that all of them see; where it has none at all, that is warned about.

    Args:
        remedy: what to do while another process holds the lock.
    Raises:
        DirectoryInUse: another process holds the lock; it is named.
        WriteError: ``directory`` cannot be written.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _taken(path, remedy)
    except OSError as error:
        raise write_error(path, error) from error
    _held.add(lock)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is given back: it is ours, and nobody else's
        _held.discard(lock)
        os.close(lock)


def _leave_to_parent() -> None:
    """In a forked process: a lock is to end with the process that took it, however that ends."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


def _taken(path: Path, remedy: str) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 1000).decode(errors="replace").strip()
            os.close(lock)
            raise DirectoryInUse(
                f"{path.parent}: is being written by {holder or 'another process'}\n  {remedy}"
            ) from error
        except OSError as error:
            warnings.warn(
                f"{path}: this file system has no locks ({error.strerror}); start nothing else with this --out",
                stacklevel=4,
            )
        if _is_at(path, lock):
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            os.truncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
            return lock
        os.close(lock)  # its last holder removed the file between our opening and locking it


def _is_at(path: Path, lock: int) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
