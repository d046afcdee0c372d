"""Where metrics go, and the one guard around all of it: no diary ends a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.report import LanguageScore


class Sink:
    """Takes the metrics of every step. May raise anything at any time: :class:`SinkList` catches it."""

    name: str
    """As in messages."""

    def open(self, step: int) -> None:
        """Get ready to write what comes after ``step``, and forget what was written of later steps.

        Called before the first write, after a roll-back, and before the first write after a failure.

        Args:
            step: -1 if nothing was done yet, not even a validation of step 0.
        """

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        """Write the metrics of a step."""

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """Write the scores of a validation."""

    def close(self) -> None:
        """Write what is still held back."""


class SinkList:
    """Calls every sink, and goes on without one that fails until that one works again."""

    def __init__(self, sinks: Sequence[Sink], logger: logging.Logger) -> None:
        self._sinks = list(sinks)
        self._logger = logger
        self._lost: dict[Sink, int] = {}
        """Failed calls of each sink since it worked last."""

    def open(self, step: int) -> None:
        """See :meth:`Sink.open`."""
        for sink in self._sinks:
            self._lost.pop(sink, None)
            self._guarded(sink, partial(sink.open, step))

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        """See :meth:`Sink.write`."""
        for sink in self._sinks:
            self._write(sink, step - 1, partial(sink.write, step, metrics))

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """See :meth:`Sink.write_validation`."""
        for sink in self._sinks:
            # The step's metrics come before its validation.
            self._write(sink, step, partial(sink.write_validation, step, scores))

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        for sink in self._sinks:
            self._guarded(sink, sink.close)

    def _write(self, sink: Sink, last_step: int, action: Callable[[], object]) -> None:
        if lost := self._lost.get(sink, 0):

            def reopen_and_write() -> None:
                sink.open(last_step)
                action()

            if self._guarded(sink, reopen_and_write):
                self._logger.warning("%s is written again; %d records are missing from it", sink.name, lost)
                del self._lost[sink]
        else:
            self._guarded(sink, action)

    def _guarded(self, sink: Sink, action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as error:  # any library behind a sink raises its own kinds
            lost = self._lost[sink] = self._lost.get(sink, 0) + 1
            if lost == 1:
                self._logger.warning(
                    "%s cannot be written, training goes on without it: %s: %s",
                    sink.name,
                    type(error).__name__,
                    error,
                )
            return False
        return True
