"""Where the time of a run went, from its first start to now or to its end."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from megatron_salamandra.cluster import History, Session
from megatron_salamandra.report.step_records import StepRecords


@dataclass(frozen=True)
class TimePart:
    """One part of the time.

    Attributes:
        estimated: whether it is worked out rather than recorded.
    """

    name: str
    seconds: float
    estimated: bool = False


@dataclass(frozen=True)
class WallTime:
    """The time of a run by what it was spent on.

    Attributes:
        started, ended: None if no event tells them.
        running_seconds: from each start to its end, summed: what a cluster counts, without the start-up.
    """

    started: datetime.datetime | None
    ended: datetime.datetime | None
    running_seconds: float
    parts: tuple[TimePart, ...]

    @property
    def seconds(self) -> float:
        """From the first start to the end."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else 0.0


def where_time_went(past: History, steps: StepRecords, now: datetime.datetime | None) -> WallTime:
    """Divide the time of a run.

    Args:
        now: the end of the time, while the run runs.
    """
    if not past.sessions:
        return WallTime(None, None, 0.0, ())
    sessions = past.sessions
    started = min(session.launched or session.started for session in sessions[:1])
    ended = max(now, sessions[-1].ended) if now else sessions[-1].ended
    start_up, waiting = _between(sessions)
    repeated = past.repeated_steps * _step_seconds(steps)
    validation, saves = steps.between.get("validation", 0.0), steps.between.get("checkpoint", 0.0)
    others = sum(steps.between.values()) - validation - saves
    parts = [
        TimePart("training steps", steps.seconds.get("step", 0.0)),
        TimePart("validation between steps", validation),
        TimePart("saves that training waited for", saves),
        TimePart("callbacks and requests", others),
        TimePart("steps that were repeated", repeated, estimated=True),
        TimePart("start-up", start_up),
        TimePart("between starts: queue, or nobody started it", waiting),
    ]
    whole = (ended - started).total_seconds()
    rest = whole - sum(part.seconds for part in parts)
    parts.append(
        TimePart("not recorded: first and last validation and save, leaving", max(0.0, rest), estimated=True)
    )
    running = sum((session.ended - session.started).total_seconds() for session in sessions)
    if now and now > sessions[-1].ended:
        running += (now - sessions[-1].ended).total_seconds()
    kept = tuple(part for part in parts if part.seconds > 0.0)
    return WallTime(started, ended, running, kept)


def _between(sessions: Sequence[Session]) -> tuple[float, float]:
    """Seconds of start-up, where a supervisor has told when it started the ranks, and of waiting before."""
    start_up = sum((one.started - one.launched).total_seconds() for one in sessions if one.launched)
    waiting = 0.0
    for before, after in pairwise(sessions):
        waiting += max(0.0, ((after.launched or after.started) - before.ended).total_seconds())
    return start_up, waiting


def _step_seconds(steps: StepRecords) -> float:
    curve = steps.curve("step_seconds")
    between = sum(steps.between.values()) / steps.steps if steps.steps else 0.0
    return curve.median + between if curve.spans else 0.0
