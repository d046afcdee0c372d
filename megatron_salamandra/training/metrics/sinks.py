"""Where metrics go, and the one guard around all of it: no diary ends a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from megatron_salamandra.run_directory import WriteGuard
from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.report import LanguageScore


class Sink:
    """Takes the metrics of every step. May raise anything at any time: :class:`SinkList` catches it.

    Called by one thread, which is not the one that trains, one call after the other.
    """

    name: str
    """As in messages."""

    def open(self, step: int) -> None:
        """Get ready to write what comes after ``step``, and forget what was written of later steps.

        Called before the first write and after a roll-back.

        Args:
            step: -1 if nothing was done yet, not even a validation of step 0.
        """

    def reopen(self, step: int) -> None:
        """Get ready again after a failed write; ``step`` is the last one before the next write."""
        self.open(step)

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        """Write the metrics of a step."""

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """Write the scores of a validation."""

    def close(self) -> None:
        """Write what is still held back."""


class SinkList:
    """Calls every sink, and goes on without one that fails until that one works again."""

    def __init__(self, sinks: Sequence[Sink], logger: logging.Logger) -> None:
        self._guards = {sink: WriteGuard(sink.name, logger) for sink in sinks}

    def open(self, step: int) -> None:
        """See :meth:`Sink.open`."""
        for sink, guard in self._guards.items():
            guard.forget()
            guard.attempt(partial(sink.open, step))

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        """See :meth:`Sink.write`."""
        for sink in self._guards:
            self._write(sink, step - 1, partial(sink.write, step, metrics))

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """See :meth:`Sink.write_validation`."""
        for sink in self._guards:
            # The step's metrics come before its validation.
            self._write(sink, step, partial(sink.write_validation, step, scores))

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        for sink, guard in self._guards.items():
            if guard.failing:  # closing writes nothing, so it cannot show that the place works again
                with contextlib.suppress(Exception):
                    sink.close()
            else:
                guard.attempt(sink.close)

    def _write(self, sink: Sink, last_step: int, action: Callable[[], object]) -> None:
        guard = self._guards[sink]
        if not guard.failing:
            guard.attempt(action)
            return

        def reopen_and_write() -> None:
            sink.reopen(last_step)
            action()

        guard.attempt(reopen_and_write)
