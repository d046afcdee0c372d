"""Signals of the scheduler to the supervisor."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def scheduler_signals() -> Iterator[list[str]]:
    """Names of the signals to stop that come while the block runs, in their order; none of them ends the process."""
    names: list[str] = []

    def remember(number: int, frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)

    before = {
        number: signal.signal(number, remember) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield names
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is remember:
                signal.signal(number, handler)
