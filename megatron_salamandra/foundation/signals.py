"""What signals do to a command, to its worker processes, and to a run.

Three ways to take one: an interruption becomes an exit code (commands), is put off until a block ends (while processes
are started and waited for), or is remembered until somebody asks (runs, which save first).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED, STOP_SIGNALS
from megatron_salamandra.foundation.parents import end_with_parent

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

WATCHED_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
"""What a run takes for a request to save and leave; the last one is a terminal that was closed."""


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


def leave_signals_to_parent() -> None:
    """In a helper process of a run: be deaf to requests to stop, and end when the run's process ends."""
    for number in WATCHED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


class SignalWatch:
    """Remembers that a signal came; a run asks for it where it can stop, and all ranks agree on the answer.

    SLURM sends the signal to every task, but not at the same instant, so no rank may act alone. Only while nothing was
    begun may it: until :meth:`begin` a signal ends the process at once with ``EXIT_STOPPED``, even if the main thread
    waits in a library for other ranks, because nothing can be lost then.

    Args:
        leave_at_once: False if something was begun already.
    """

    def __init__(self, *, leave_at_once: bool = False) -> None:
        self.received: str | None = None
        self._leave_at_once = leave_at_once
        self._last_words: list[Callable[[], object]] = []
        self._previous: dict[int, Any] = {}
        self._listener: tuple[threading.Thread, int, int] | None = None

    @property
    def leaves_at_once(self) -> bool:
        """True while a signal ends the process, because nothing was begun."""
        return self._leave_at_once

    def wait(self, seconds: float) -> bool:
        """Wait until a signal has come, but no longer than so many seconds; says whether one has."""
        deadline = time.monotonic() + seconds
        while self.received is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.received is not None

    def before_leaving(self, action: Callable[[], object]) -> None:
        """Have ``action`` done if a signal ends the process before :meth:`begin`."""
        self._last_words.append(action)

    def begin(self) -> None:
        """Something is begun: from here on signals are remembered only."""
        self._leave_at_once = False
        if self._listener is not None:
            thread, end, previous = self._listener
            self._listener = None
            signal.set_wakeup_fd(previous)
            os.close(end)
            thread.join(timeout=1.0)

    def __enter__(self) -> SignalWatch:
        if self._leave_at_once:
            self._listen()
        for number in WATCHED_SIGNALS:
            # What nohup and the like ignore stays ignored.
            if number in STOP_SIGNALS or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exc: object) -> None:
        self.begin()
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._remember:
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if self._leave_at_once:
            self._leave(number)

    def _listen(self) -> None:
        """Hear signals in a thread too, because the main thread may be waiting inside a library."""
        receiving, sending = os.pipe()
        os.set_blocking(sending, False)
        previous = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)

        def listen() -> None:
            with os.fdopen(receiving, "rb", buffering=0) as numbers:
                while number := numbers.read(1):
                    if self._leave_at_once and number[0] in self._previous:
                        self._leave(number[0])

        thread = threading.Thread(target=listen, name="signals-before-the-start", daemon=True)
        thread.start()
        self._listener = (thread, sending, previous)

    def _leave(self, number: int) -> None:
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):
            if os.environ.get("RANK", "0") == "0":
                os.write(2, f"stopped by {name} before anything was begun\n".encode())
        for action in self._last_words:
            with contextlib.suppress(Exception):
                action()
        os._exit(EXIT_STOPPED)
