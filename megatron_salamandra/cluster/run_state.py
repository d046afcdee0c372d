"""How far a run is, read from its directory alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_salamandra.foundation.json_files import number_in
from megatron_salamandra.run_directory import (
    Event,
    MetricsLog,
    RunDirectory,
    StepRecord,
    latest_checkpoint,
    read_events,
    step_of,
)

_LAST_STEPS = 50


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        last_step: the last step of which there is a record.
        saved_step: step of the newest complete checkpoint, 0 without one.
        done: whether every step of the run is trained and saved.
    """

    last_step: int
    saved_step: int
    done: bool


@dataclass(frozen=True)
class Pace:
    """What the run's own history says of its times.

    Attributes:
        step_seconds: from one step to the next, mean of the last steps, with what passes between them; None before
            the first.
        save_seconds: of the last save; None before the first.
        tokens_per_second: of the last steps, median, without what passes between them.
    """

    step_seconds: float | None
    save_seconds: float | None
    tokens_per_second: float | None

    def stop_seconds(self) -> int:
        """What a stop takes with room to spare: three saves and two steps, two minutes at least."""
        return max(120, round(3 * (self.save_seconds or 0.0) + 2 * (self.step_seconds or 0.0)))


def saved_step(directory: RunDirectory) -> int:
    """Step of the newest complete checkpoint; 0 without one."""
    newest = latest_checkpoint(directory.checkpoints)
    return 0 if newest is None else step_of(newest)


def last_step(directory: RunDirectory) -> int:
    """The last step of which there is a record; 0 before the first."""
    steps = MetricsLog(directory.metrics).recent()
    return steps[-1].step if steps else 0


def pace(directory: RunDirectory) -> Pace:
    """The run's pace."""
    return pace_of(MetricsLog(directory.metrics).recent(), read_events(directory.events))


def pace_of(steps: Sequence[StepRecord], events: Sequence[Event]) -> Pace:
    """The pace of a run, of its last steps and all its events."""
    steps = steps[-_LAST_STEPS:]
    seconds = [found for step in steps if (found := _seconds(step)) is not None]
    rates = [
        found for step in steps if (found := number_in(step.values.get("tokens_per_second"))) is not None
    ]
    saves = [event.details.get("seconds") for event in events if event.kind == "checkpoint"]
    return Pace(
        sum(seconds) / len(seconds) if seconds else None,
        number_in(saves[-1]) if saves else None,
        sorted(rates)[len(rates) // 2] if rates else None,
    )


def _seconds(step: StepRecord) -> float | None:
    parts, between = step.values.get("seconds"), step.values.get("seconds_between_steps")
    whole = number_in(parts.get("step")) if isinstance(parts, dict) else None
    if whole is None:
        return None
    others = between.values() if isinstance(between, dict) else ()
    return whole + sum(number_in(value) or 0.0 for value in others)
