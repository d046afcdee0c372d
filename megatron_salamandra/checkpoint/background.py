"""A function in a process of its own, whose end is always noticed.

The process is forked: it has everything in memory as it was, at the price of the page tables, and what the caller
changes later it does not see. It answers into memory that both share, so nothing in between can break: no queue, no
process that keeps one. It is killed when the caller ends, and does not hear requests to stop.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron_salamandra.foundation.signals import leave_signals_to_parent

_LOOK_SECONDS = 0.01
_DEATH_SECONDS = 1.0


@dataclass(frozen=True)
class Answer:
    """How the function ended.

    Attributes:
        value: what it returned.
        error: what it raised, or how its process died; None if it returned.
    """

    value: Any = None
    error: BaseException | None = None


class HelperDied(Exception):
    """The process ended without an answer, such as by a signal."""


class BackgroundWork:
    """One call of a function in a forked process. Call from the main thread, which owns it."""

    def __init__(self, action: Callable[[], object], what: str) -> None:
        """Fork and return at once.

        Args:
            action: what to do; its value and exceptions must be picklable.
            what: names the process in messages, such as "the writer of tensors".
        """
        self._what = what
        self._answer: Answer | None = None
        parent = os.getpid()
        self._memory: int | None = None
        try:
            self._memory = os.memfd_create("answer")
            with warnings.catch_warnings():
                # It has threads. The child only writes files, and takes no lock that one of ours may hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
        except (
            OSError
        ) as error:  # no memory, too many processes: a caller must not fail apart from other ranks
            if self._memory is not None:
                os.close(self._memory)
            self._answer = Answer(error=HelperDied(f"{what} could not be started: {error.strerror}"))
            return
        if self.pid == 0:
            _work(action, self._memory, parent)

    def answer(self, patience_seconds: float = 0.0) -> Answer | None:
        """How it ended; None if it has not within the time that is given to it."""
        until = time.monotonic() + patience_seconds
        while self._answer is None:
            assert self._memory is not None
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._answer = self._read(status, self._memory)
                os.close(self._memory)
            elif time.monotonic() >= until:
                break
            else:
                time.sleep(_LOOK_SECONDS)
        return self._answer

    def kill(self) -> None:
        """End it. One that waits for a dead disk does not end before the disk answers, and is waited for
        a second only; :func:`reap` takes leave of it later."""
        if self._answer is None:
            os.kill(self.pid, signal.SIGKILL)  # not waited for yet, so nobody else has its number
            if self.answer(_DEATH_SECONDS) is None and self not in _LEFT:
                _LEFT.append(self)

    def _read(self, status: int, memory: int) -> Answer:
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            with contextlib.suppress(EOFError, pickle.UnpicklingError):
                contents = os.pread(memory, os.fstat(memory).st_size, 0)
                value, error = pickle.loads(contents)  # nosec B301 # from our own memory
                return Answer(value, error)
        how = f"was killed by signal {-code} ({_name_of(-code)})" if code < 0 else f"ended with code {code}"
        return Answer(error=HelperDied(f"{self._what} (process {self.pid}) {how}"))


_LEFT: list[BackgroundWork] = []
"""Killed, and not ended in time."""


def reap() -> None:
    """Take leave of killed processes that have ended since, so that none stays a zombie; call now and then."""
    _LEFT[:] = [work for work in _LEFT if work.answer() is None]


def _work(action: Callable[[], object], memory: int, parent: int) -> None:
    """What the forked process does; does not return."""
    code = 1
    # Collecting what the caller has on a device would fail here, and would touch, so copy, memory for nothing.
    gc.disable()
    try:
        leave_signals_to_parent()
        if os.getppid() != parent:  # it ended before the kernel was told
            return
        try:
            answer: tuple[object, BaseException | None] = (action(), None)
        except BaseException as error:
            answer = (None, error)
        try:
            contents = pickle.dumps(answer)
            pickle.loads(contents)  # nosec B301 # an exception may go in and not come out again
        except Exception:
            contents = pickle.dumps((None, RuntimeError("".join(traceback.format_exception(answer[1])))))
        done = 0
        while done < len(contents):
            done += os.write(memory, contents[done:])
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
