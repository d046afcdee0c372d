"""A directory as a run needs it: shared, lockable, with space, and fast enough."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from megatron_salamandra.node_check.result import Check, State

TOKEN = "token"
"""Name of the file by which a node knows that it sees the same directory as the batch host."""
WRITTEN_MIB = 32
LEAST_FREE_GIB = 1.0
_GIB = 1024.0**3
_WRITE_SECONDS = 5.0

_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as stream:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(3)
"""


def check_run_dir(directory: Path, token: str | None = None) -> Check:
    """Free space, locks and write speed in ``directory``, and whether it is the batch host's.

    Args:
        directory: where this node's result goes; made if it is not there.
        token: what the file ``token`` must hold if all nodes see one directory; None does not ask.
    """
    try:
        if token is not None and (found := _token(directory)) != token:
            return Check(
                "run_dir",
                State.FAILED,
                f"{directory} is another one than on the batch host ({found})\n  is its file system mounted here?",
            )
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free / _GIB
        with _own_file(directory) as path:
            rate = write_speed(path)
            locks = locks_problem(path)
    except OSError as error:
        return Check("run_dir", State.FAILED, f"{directory} cannot be written: {error.strerror or error}")
    warnings = [locks] if locks else []
    if free < LEAST_FREE_GIB:
        warnings.append(f"{free:.2f} GiB are free in {directory}")
    message = "; ".join(warnings) or f"{free:.1f} GiB free, {rate:.0f} MiB/s written and synced, locks work"
    return Check("run_dir", State.WARNING if warnings else State.OK, message, {"write_mib_per_s": (rate,)})


def write_speed(path: Path) -> float:
    """MiB/s of a file that is written and synced, up to :data:`WRITTEN_MIB` or some seconds.

    Raises:
        OSError: the system refuses.
    """
    chunk = os.urandom(1 << 20)  # what compresses would flatter some file systems
    started = time.perf_counter()
    written = 0
    with path.open("r+b", buffering=0) as stream:
        while written < WRITTEN_MIB and time.perf_counter() - started < _WRITE_SECONDS:
            if stream.write(chunk) != len(chunk):
                raise OSError(28, "No space left on device")
            written += 1
        os.fsync(stream.fileno())
    return written / max(time.perf_counter() - started, 1e-9)


def locks_problem(path: Path) -> str:
    """Why a lock on a file does not keep another process out; empty if it does."""
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return (
                f"the file system has no locks ({error.strerror}): two jobs could train in one run directory"
            )
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", _TRY_LOCK, str(path)],
            capture_output=True,
            timeout=20,
            check=False,
        )
    if done.returncode == 3:
        return ""
    if done.returncode == 0:
        return "a lock does not keep other processes out: two jobs could train in one run directory"
    return f"another process could not try the lock: {done.stderr.decode(errors='replace').strip()[-200:]}"


def _token(directory: Path) -> str:
    try:
        return (directory / TOKEN).read_text(encoding="utf-8").strip()
    except OSError as error:
        return error.strerror or str(error)


@contextlib.contextmanager
def _own_file(directory: Path) -> Iterator[Path]:
    path = directory / f".speed-{socket.gethostname()}-{uuid.uuid4().hex}"
    path.touch(exist_ok=False)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
