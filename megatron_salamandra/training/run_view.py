"""What a callback may know of its run, and what it may ask for. Never imports torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megatron_salamandra.config import RunConfig
from megatron_salamandra.run_directory import EventLog, RunDirectory
from megatron_salamandra.timeline import Timeline
from megatron_salamandra.training.decision import Decision
from megatron_salamandra.training.metrics.book import MetricBook, Number

if TYPE_CHECKING:
    from megatron_salamandra.data import SourceLedger  # the package imports torch


@dataclass
class Progress:
    """Where a run is, kept by the trainer, and what callbacks of this rank have asked for."""

    timeline: Timeline
    """Which samples each step of the run takes."""
    step: int = 0
    """Optimizer steps done since the beginning of the run."""
    skipped_updates: int = 0
    """How many of them left the weights as they were."""
    stop_reason: str | None = None
    """Why the run ends before its last step; None while it goes on or is complete."""
    stop_request: str | None = None
    """Reason of a stop that was asked for on this rank and not agreed on yet."""
    save_request: bool = False
    """Whether a save was asked for on this rank and not agreed on yet."""
    roll_back: Decision | None = None
    """Why the step that was just done is rolled back, the same on all ranks."""


class Run:
    """A narrow view of a run: nothing in it changes the run but the requests."""

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        *,
        rank: int,
        world_size: int,
        logger: logging.Logger,
        events: EventLog,
        metrics: MetricBook,
        progress: Progress,
        ledger: Callable[[int], list[SourceLedger]],
    ) -> None:
        self.config = config
        self.directory = directory
        self.rank = rank
        self.world_size = world_size
        self.logger = logger
        self.events = events
        self._metrics = metrics
        self._progress = progress
        self._ledger = ledger

    @property
    def step(self) -> int:
        """Optimizer steps done since the beginning of the run."""
        return self._progress.step

    @property
    def timeline(self) -> Timeline:
        """The run's position in its data: samples, tokens and phase of every step."""
        return self._progress.timeline

    @property
    def skipped_updates(self) -> int:
        """How many steps left the weights as they were."""
        return self._progress.skipped_updates

    @property
    def stop_reason(self) -> str | None:
        """Why the run ends before its last step; None while it goes on or is complete."""
        return self._progress.stop_reason

    @property
    def roll_back_is_wanted(self) -> bool:
        """Whether the step that was just done is going to be rolled back."""
        return self._progress.roll_back is not None

    @property
    def is_writer(self) -> bool:
        """True on the rank that writes the run's files."""
        return self.rank == 0

    def ledger(self, step: int) -> list[SourceLedger]:
        """What the run has drawn from each source after ``step`` steps."""
        return self._ledger(step)

    def record(self, name: str | Sequence[str], value: Number | None, unit: str = "") -> None:
        """Record a metric of the step that is being measured; see :meth:`MetricBook.record`."""
        self._metrics.record(name, value, unit)

    def request_save(self) -> None:
        """Ask for a checkpoint. One rank is enough; all of them agree in the next step and save after it."""
        self._progress.save_request = True

    def request_stop(self, reason: str) -> None:
        """Ask to save and leave. One rank is enough; all of them agree in the next step and stop after it."""
        self._progress.stop_request = reason

    def request_roll_back(self, decision: Decision) -> None:
        """Have the step that was just done rolled back, in :meth:`Callback.after_step`; all ranks have to ask for it.

        Callbacks behind this one are not called for the step any more, so that it is neither written nor saved.
        """
        self._progress.roll_back = decision
