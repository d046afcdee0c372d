"""One run at a time in a run directory, across processes and hosts, and also after a kill.

Rank 0 owns the directory while it runs. Two things say so, because neither is enough alone:

* ``.lock`` carries a lock of the kernel. It ends with its process, however that ends, so a dead owner never blocks;
  but some file systems have no locks, and some keep them to one host.
* ``.owner`` names the owner: host, process, start, job, and a token of its own. A thread touches it every
  ``HEARTBEAT_SECONDS``. An owner on another host lives as long as its heartbeat is seen to change.

Whoever takes the directory puts a token of its own into ``.owner``. An owner that was cut off and comes back finds a
foreign token there and may write nothing any more: it is asked before a checkpoint gets its name.
docs/decisions/0016-one-owner-of-a-run-directory.md has the rule and its limits.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import WriteError
from megatron_salamandra.foundation.json_files import JsonError, read_json_object, write_json
from megatron_salamandra.run_directory.errors import RunDirectoryError, unwritable
from megatron_salamandra.run_directory.layout import RunDirectory
from megatron_salamandra.run_directory.owner_record import OwnerRecord

LOGGER = logging.getLogger("salamandra")

HEARTBEAT_SECONDS = 10.0
"""How often the owner shows that it lives."""
SILENCE_SECONDS = 60.0
"""An owner on another host that shows no heartbeat for so long is taken for dead."""
HELPERS_SECONDS = 10.0
"""How long the helper processes of a dead owner on this host, which still hold its lock, may take to end."""
POLL_SECONDS = 0.2


class OwnershipLost(RunDirectoryError):
    """Another run has taken the directory; this one may write nothing into it any more."""


class RunOwner:
    """The proof that this process owns a run directory, made by :func:`own`."""

    def __init__(self, directory: RunDirectory, record: OwnerRecord, lock: _Lock) -> None:
        self._directory = directory
        self._lock = lock
        self.record = record

    @property
    def token(self) -> str:
        """What no other owner of this directory has."""
        return self.record.token

    def check(self) -> None:
        """Make sure that the directory is still ours.

        Raises:
            OwnershipLost: ``.owner`` carries another token, or it and our lock are gone.
        """
        found = read_owner(self._directory)
        if found is None and self._lock.holds and _is_at(self._directory, self._lock.descriptor):
            write_json(self._directory.owner, self.record.to_json())  # somebody tidied up too much
        elif found is None or found.token != self.token:
            who = f"by {found.description}" if found else f"meanwhile: {self._directory.owner} is gone"
            raise OwnershipLost(
                f"{self._directory.path} was taken over {who}\n"
                f"  this run, {self.record.description}, may not write there any more; let the other run go on, "
                "or stop it and start this one again"
            )


@contextmanager
def own(directory: RunDirectory, shown: Path | None = None) -> Iterator[RunOwner]:
    """Own a run directory while the block runs; makes it if it is not there.

    Args:
        shown: what messages call it; its path unless said.

    An owner that was killed does not block: at once if it was on this host or was of an earlier round of the same SLURM
    job (after ``HELPERS_SECONDS`` where a host that was cut off still holds the lock), or has been silent for
    ``SILENCE_SECONDS``; otherwise when it has been watched for that long.

    Raises:
        RunDirectoryError: another run owns it (it is named), or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            directory.path.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(_opened_lock(directory, shown))
            _refuse_a_living_owner(directory, lock, shown)
            owner = RunOwner(directory, OwnerRecord.of_this_process(), lock)
            write_json(directory.owner, owner.record.to_json())
            stack.callback(release, directory, owner.token)
            if not lock.holds:
                _settle(owner)
        except OSError as error:
            raise unwritable(directory, error) from error
        except WriteError as error:
            raise unwritable(directory, _cause(error)) from error
        stack.enter_context(_heartbeat(directory, owner))
        yield owner


def is_silent(directory: RunDirectory) -> bool:
    """Whether the owner on another host seems to be dead: no heartbeat for long, by the clock of this host.

    For people only; whoever takes the directory watches the owner with the file system's own clock.
    """
    seen = _heartbeat_of(directory)
    return seen > 0 and time.time() - seen > 3 * SILENCE_SECONDS


def release(directory: RunDirectory, token: str | None = None) -> None:
    """Remove the record of the directory's owner, if that is this process and, where it is given, has this token."""
    found = read_owner(directory)
    if found is not None and found.is_this_process and token in (None, found.token):
        with contextlib.suppress(OSError):
            directory.owner.unlink()


def read_owner(directory: RunDirectory) -> OwnerRecord | None:
    """Who owns the directory by its record; None if nobody does, or the record is not readable."""
    try:
        return OwnerRecord.from_json(read_json_object(directory.owner))
    except (JsonError, KeyError, TypeError, ValueError):
        return None


class _Lock:
    """The opened ``.lock``; ``holds`` is False where the file system has no locks."""

    def __init__(self, descriptor: int, holds: bool) -> None:
        self.descriptor, self.holds = descriptor, holds


@contextmanager
def _opened_lock(directory: RunDirectory, shown: Path | None) -> Iterator[_Lock]:
    deadline = time.monotonic() + HELPERS_SECONDS
    while True:
        descriptor = os.open(directory.lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holds = True
        except BlockingIOError:
            os.close(descriptor)
            record = read_owner(directory)
            if record is not None and record.is_of_an_earlier_round():
                # SLURM ended it, but for a host that is cut off: its token keeps that one from writing.
                if time.monotonic() > deadline:
                    directory.lock.unlink(missing_ok=True)
            # No record: its holder is about to write it. A dead one: its helpers are about to end.
            elif (record is not None and record.lives is not False) or time.monotonic() > deadline:
                raise _in_use(shown or directory.path, record) from None
            time.sleep(POLL_SECONDS)
            continue
        except OSError as error:
            LOGGER.warning(
                "%s: this file system has no locks (%s): %s alone keeps a second run out",
                directory.lock,
                error.strerror,
                directory.owner.name,
            )
            holds = False
        if _is_at(directory, descriptor):
            break
        os.close(descriptor)  # its last holder removed the file between our opening and locking it
    try:
        yield _Lock(descriptor, holds)
    finally:
        # Before the lock is given back: it is ours, and nobody else's. A place that cannot be written any more, or is
        # gone, must not spoil the end of a run.
        with contextlib.suppress(OSError):
            if holds and _is_at(directory, descriptor):
                directory.lock.unlink()
        os.close(descriptor)


def _is_at(directory: RunDirectory, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), directory.lock.stat())
    except FileNotFoundError:
        return False


def _refuse_a_living_owner(directory: RunDirectory, lock: _Lock, shown: Path | None) -> None:
    """Return when the recorded owner is known to be dead.

    Raises:
        RunDirectoryError: it lives.
    """
    record = read_owner(directory)
    if record is None or record.lives is False or record.is_of_an_earlier_round():
        return
    if record.lives:
        raise _in_use(shown or directory.path, record)
    seen = _heartbeat_of(directory)
    # The file system's own clock, because hosts need not agree on the time.
    os.utime(lock.descriptor)
    silent_for = max(0.0, os.fstat(lock.descriptor).st_mtime - seen)
    if silent_for >= SILENCE_SECONDS:
        return
    LOGGER.warning(
        "%s was left by %s: waiting up to %.0f s for a sign of its life",
        directory.owner,
        record.description,
        SILENCE_SECONDS - silent_for,
    )
    deadline = time.monotonic() + SILENCE_SECONDS - silent_for
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        found = read_owner(directory)
        if found is None:
            return
        if found.token != record.token or _heartbeat_of(directory) != seen:
            raise _in_use(shown or directory.path, found)


def _heartbeat_of(directory: RunDirectory) -> float:
    try:
        # Opened, because network file systems answer a mere stat from memory.
        with directory.owner.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0


def _settle(owner: RunOwner) -> None:
    """Without a lock two runs may have taken the directory at the same moment; the last one to write has it."""
    time.sleep(5 * POLL_SECONDS)
    owner.check()


@contextmanager
def _heartbeat(directory: RunDirectory, owner: RunOwner) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            found = read_owner(directory)
            if found is not None and found.token == owner.token:
                with contextlib.suppress(OSError):
                    os.utime(directory.owner)

    thread = threading.Thread(target=beat, name="owner-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _in_use(path: Path, record: OwnerRecord | None) -> RunDirectoryError:
    who = record.description if record else "another process"
    return RunDirectoryError(
        f"run_dir = {path} is being used by {who}\n"
        "  wait until that run ends, stop it, or choose another run_dir"
    )


def _cause(error: WriteError) -> OSError:
    return error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error))
