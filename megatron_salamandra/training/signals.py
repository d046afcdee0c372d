"""Signals that ask a run to save and leave: SIGTERM (preemption) and SIGUSR1 (time limit ahead)."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from megatron_salamandra.exit_protocol import STOP_SIGNALS


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
