"""What SIGINT and SIGTERM do while worker processes are started and waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

    handled = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
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
