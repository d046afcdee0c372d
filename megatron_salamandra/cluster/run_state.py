"""How far a run is, read from its directory alone."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.run_directory import (
    MetricsLog,
    RunDirectory,
    latest_checkpoint,
    read_events,
    step_of,
)


@dataclass(frozen=True)
class Pace:
    """What the run's own history says of its times.

    Attributes:
        step_seconds: of the last steps, median; None before the first.
        save_seconds: of the last save; None before the first.
        tokens_per_second: of the last steps, median.
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
    steps = [record.values for record in MetricsLog(directory.metrics).recent()[-50:]]
    seconds = [float(step["seconds"]["step"]) for step in steps if isinstance(step.get("seconds"), dict)]
    rates = [float(step["tokens_per_second"]) for step in steps if "tokens_per_second" in step]
    saves = [event for event in read_events(directory.events) if event.kind == "checkpoint"]
    last_save = float(saves[-1].details["seconds"]) if saves and "seconds" in saves[-1].details else None
    return Pace(_median(seconds), last_save, _median(rates))


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
