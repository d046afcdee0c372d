"""Ctrl-C, and what a scheduler sends in its place: a line on stderr and an exit code instead of a traceback."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

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
