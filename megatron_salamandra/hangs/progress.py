"""What this rank is in: a few local variables that the trainer sets and the watchdog's threads read.

There is one rank in a process, so there is one of these, :data:`PROGRESS`: whatever takes part in training says where
it is without being handed anything. Saying so costs about a microsecond and touches neither network nor disk.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_STEPS_REMEMBERED = 50


class Part(StrEnum):
    """Parts of a rank's life, in the order in which a step goes through them."""

    START = "start"
    DATA = "data"
    FORWARD = "forward"
    BACKWARD = "backward"
    REDUCE = "reduce"
    DECIDE = "decide"
    UPDATE = "update"
    CALLBACKS = "callbacks"
    VALIDATION = "validation"
    SAVE = "save"
    LOAD = "load"
    END = "end"

    @property
    def phase(self) -> int:
        """Parts with a greater one come later in a step; those with an equal one go to and fro."""
        return _PHASES[self]

    @property
    def between_steps(self) -> bool:
        """Whether the step it belongs to is done."""
        return self.phase >= _PHASES[Part.CALLBACKS]

    @property
    def has_own_time(self) -> bool:
        """Whether it is measured apart from what it interrupts."""
        return self in (Part.VALIDATION, Part.SAVE, Part.LOAD)


_PHASES = {
    Part.START: 0,
    Part.DATA: 1,
    Part.FORWARD: 2,
    Part.BACKWARD: 2,
    Part.REDUCE: 3,
    Part.DECIDE: 4,
    Part.UPDATE: 5,
    Part.CALLBACKS: 6,
    Part.VALIDATION: 6,
    Part.SAVE: 6,
    Part.LOAD: 6,
    Part.END: 7,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank is.

    Attributes:
        step: that is being done, or behind which it is; 0 before the first.
        detail: such as a callback's name.
        marks: places since the phase changed, this one included: tells who is further inside a phase.
    """

    part: Part
    step: int
    detail: str
    marks: int

    def __str__(self) -> str:
        what, detail = self.part.value, f" ({self.detail})" if self.detail else ""
        if self.part is Part.LOAD:
            return f"loading {self.detail}"
        if self.part is Part.START or (self.part.between_steps and not self.step):
            return f"in the start{detail}"
        if self.part is Part.END:
            return f"at its end after step {self.step}{detail}"
        if self.part.between_steps:
            return f"in {what} after step {self.step}{detail}"
        return f"in {what} of step {self.step}{detail}"


@dataclass(frozen=True)
class Limits:
    """How long a rank may stay where it is, in seconds; None is for ever.

    Attributes:
        start: from its first line to the end of its first step, without saves and validations.
        step: a step, or one callback; ten times the median of the last steps where that is longer.
        save: one call that begins or completes saves, or the loading of a checkpoint.
        validation: one language.
        collective: one that was begun in a step, beyond the first.
    """

    start: float | None
    step: float | None
    save: float | None
    validation: float | None
    collective: float | None = None

    def shortest(self) -> float | None:
        """The least of them; None if there is none."""
        return min((limit for limit in (*self._of_watchdog, self.collective) if limit), default=None)

    def longest(self) -> float | None:
        """The greatest of those that end a rank; None if one is for ever."""
        limits = self._of_watchdog
        return None if None in limits else max(limit for limit in limits if limit)

    @property
    def _of_watchdog(self) -> tuple[float | None, ...]:
        return (self.start, self.step, self.save, self.validation)


class RankProgress:
    """Where this rank is and how long its steps take."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything: a rank begins."""
        self.place = Place(Part.START, 0, "configuration", 1)
        self.entered = time.perf_counter()
        """When it came there, by ``time.perf_counter``."""
        self.peers = ""
        """Ranks that call themselves the same do the same collectives and micro-batches."""
        self.count_collectives: Callable[[], int] | None = None
        """How many collectives this rank has begun."""
        self.write_collectives: Callable[[Path], object] | None = None
        """Writes what is known of the last ones."""
        self.when_patience_changes: Callable[[], object] | None = None
        """Called when :attr:`others_may_be_long` or :attr:`usual_step_seconds` changes."""
        self._step_seconds: deque[float] = deque(maxlen=_STEPS_REMEMBERED)

    @property
    def has_stepped(self) -> bool:
        """Whether the first step of this process is done."""
        return bool(self._step_seconds)

    @property
    def others_may_be_long(self) -> bool:
        """Whether ranks may rightly be longer in what this one is in than in a step."""
        return not self._step_seconds or self.place.part.has_own_time

    @property
    def usual_step_seconds(self) -> float:
        """Median of the last steps; 0 before the first."""
        return statistics.median(self._step_seconds) if self._step_seconds else 0.0

    def enter(self, part: Part, detail: str = "", *, step: int | None = None) -> None:
        """Say where the rank is from now on.

        Args:
            step: its number; the last one that was named if None.
        """
        last = self.place
        step = last.step if step is None else step
        same = step == last.step and part.phase == last.part.phase
        self.place = Place(part, step, detail, last.marks + 1 if same else 1)
        self.entered = time.perf_counter()
        if self.when_patience_changes is not None and part.has_own_time != last.part.has_own_time:
            self.when_patience_changes()

    @contextlib.contextmanager
    def inside(self, part: Part, detail: str = "") -> Iterator[None]:
        """Be somewhere while the block runs, and then where the rank was before."""
        before = self.place
        self.enter(part, detail)
        yield
        self.enter(before.part, before.detail, step=before.step)

    def step_done(self, seconds: float) -> None:
        """Remember how long a step took."""
        self._step_seconds.append(seconds)
        if self.when_patience_changes is not None:
            self.when_patience_changes()

    def limit(self, limits: Limits) -> float | None:
        """Seconds that the rank may stay where it is; None for ever."""
        part = self.place.part
        if part is Part.VALIDATION:
            return limits.validation
        if part.has_own_time:
            return limits.save
        if not self._step_seconds:
            return limits.start
        return None if limits.step is None else max(limits.step, 10 * self.usual_step_seconds)

    def timed_as(self) -> object:
        """What the limit applies to: equal as long as the rank stays in it."""
        place = self.place
        if place.part.has_own_time:
            return id(place), place  # each has its own time, and is nothing but itself
        if not self._step_seconds:
            return Part.START
        if place.part.between_steps:
            return id(place), place
        return place.step


PROGRESS = RankProgress()
"""Of the rank that this process is."""
