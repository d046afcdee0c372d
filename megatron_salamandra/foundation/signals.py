"""What signals do to a command, to its worker processes, and to a run.

Three ways to take one: an interruption becomes an exit code (commands), is put off until a block ends (while processes
are started and waited for), or is remembered until somebody asks (runs, which save first).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

from megatron_salamandra.foundation.exit_codes import STOP_SIGNALS

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""


class Interruption:
    """Makes KeyboardInterrupt of signals while the block runs, and knows whether one came.

    ``arrived`` tells more than the exception that leaves the block does: packages raise others in place of
    KeyboardInterrupt, ImportError among them.

    Args:
        numbers: the signals; one that is ignored stays ignored.
        tidy: whether there is work to be ended well. Then the second signal does nothing (a third does), and behind an
            interrupted block none does. Otherwise a signal behind it ends the process at once.
    """

    def __init__(self, *numbers: signal.Signals, tidy: bool) -> None:
        self._numbers, self._tidy = numbers, tidy
        self._count = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def arrived(self) -> bool:
        """Whether a signal came."""
        return self._count > 0

    def __enter__(self) -> Interruption:
        for number in self._numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._arrive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) != self._arrive:
                continue  # an inner block was interrupted
            after = signal.SIG_IGN if self._tidy else signal.SIG_DFL
            signal.signal(number, after if self.arrived else before)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if not (self._tidy and self._count == 2):
            raise KeyboardInterrupt


_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruption_deferred(*, kill: Sequence[BaseProcess] = ()) -> Iterator[None]:
    """A signal that comes in the block takes effect at its end, unless it is ignored anyway.

    Args:
        kill: processes that it kills at once, since the block waits for them.
    """
    if threading.current_thread() is not threading.main_thread():  # which gets all signals
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        for process in kill:
            process.kill()

    handled = [number for number in _INTERRUPTIONS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def interruption_unseen_by_children() -> Iterator[None]:
    """Processes started in the block never see SIGINT, and one that comes meanwhile takes effect at its end.

    A process that Ctrl-C reached before it can ignore it would die with a traceback, and one that is started but not
    yet known to who started it would never be told to stop.
    """
    resource_tracker.ensure_running()  # else starting the first process starts it, which lets SIGINT through again
    with interruption_deferred():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class SignalWatch:
    """Remembers that a signal came; the loop asks once per step and all ranks agree on the answer.

    SLURM sends the signal to every task, but not at the same instant, so no rank may act alone.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalWatch:
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
