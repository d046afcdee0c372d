"""Where a run is: which samples each of its steps takes, and how much it has trained on by then.

A run is a short list of segments, each a number of steps of one batch size over consecutive samples of one phase's
stream. A change of phase or of the batch size, and samples that are passed over, begin a new segment. So every
question is a bisection and some integer arithmetic, and nothing is counted while training.

Steps are counted from 1, as in ``metrics.jsonl``; "after step 0" is before the first one.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one batch size over consecutive samples of one phase.

    Attributes:
        phase: number of the phase, from 0.
        steps: how many.
        first_sample: number, in the phase's stream, of the first sample that is taken.
        batch_size: samples of a step.
        sequence_length: tokens of a sample.
    """

    phase: int
    steps: int
    first_sample: int
    batch_size: int
    sequence_length: int

    @property
    def end_sample(self) -> int:
        """Number of the sample behind the last one taken."""
        return self.first_sample + self.steps * self.batch_size


@dataclass(frozen=True)
class SkippedSamples:
    """Samples of a phase's stream that the run passed over without training on them, by number."""

    phase: int
    samples: range


@dataclass(frozen=True)
class Timeline:
    """The steps of a run, in order.

    Args:
        phases: names of the phases, in order.
        segments: in order of step; at least one.

    Raises:
        ValueError: there is no segment, a number is out of range, or a segment goes back to an earlier phase or takes
            samples that were taken or passed over before.
    """

    phases: tuple[str, ...]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("a timeline has at least one segment")
        reached: dict[int, int] = {}
        last_phase = 0
        for segment in self.segments:
            least = min(segment.steps, segment.batch_size, segment.sequence_length)
            if least < 1 or not last_phase <= segment.phase < len(self.phases):
                raise ValueError(f"{segment} does not fit into a run of the phases {', '.join(self.phases)}")
            if segment.first_sample < reached.get(segment.phase, 0):
                raise ValueError(f"{segment} takes samples again: {reached[segment.phase]:,} are behind it")
            reached[segment.phase], last_phase = segment.end_sample, segment.phase

    @classmethod
    def of_one_phase(cls, name: str, *, steps: int, batch_size: int, sequence_length: int) -> Timeline:
        """A run of one phase, whose steps all take the same number of samples."""
        return cls((name,), (Segment(0, steps, 0, batch_size, sequence_length),))

    @property
    def total_steps(self) -> int:
        """Length of the run."""
        return self._ends[-1].steps

    def samples(self, step: int) -> int:
        """Samples trained on after ``step`` steps, over all phases."""
        return self._totals(step).samples

    def tokens(self, step: int) -> int:
        """Tokens trained on after ``step`` steps, over all phases."""
        return self._totals(step).tokens

    def phase(self, step: int) -> int:
        """Number of the phase that step ``step`` (from 1) belongs to."""
        return self._segment_of(step)[0].phase

    def step_samples(self, step: int) -> range:
        """Numbers, in its phase's stream, of the samples that step ``step`` (from 1) is trained on."""
        segment, done = self._segment_of(step)
        first = segment.first_sample + done * segment.batch_size
        return range(first, first + segment.batch_size)

    def step_tokens(self, step: int) -> int:
        """Tokens that step ``step`` (from 1) is trained on."""
        segment, _ = self._segment_of(step)
        return segment.batch_size * segment.sequence_length

    def sequence_length(self, step: int) -> int:
        """Tokens of a sample of step ``step`` (from 1)."""
        return self._segment_of(step)[0].sequence_length

    def first_step(self, phase: int) -> int:
        """Steps of the run before a phase."""
        return sum(segment.steps for segment in self.segments if segment.phase < phase)

    def last_step(self, phase: int) -> int:
        """Number of a phase's last step, from 1."""
        return self.first_step(phase + 1)

    def reached_sample(self, phase: int, step: int) -> int:
        """Where a phase's stream stands after ``step`` steps of the run: the number of the sample that comes next."""
        reached = 0
        for segment, end in zip(self.segments, self._ends, strict=True):
            done = min(segment.steps, step - (end.steps - segment.steps))
            if segment.phase == phase and done > 0:
                reached = segment.first_sample + done * segment.batch_size
        return reached

    def skipped(self, step: int | None = None) -> tuple[SkippedSamples, ...]:
        """What was passed over before the samples of step ``step`` and those before it; of the whole run if None."""
        found = []
        reached: dict[int, int] = {}
        for segment, end in zip(self.segments, self._ends, strict=True):
            if step is not None and end.steps - segment.steps >= step:
                break
            before = reached.get(segment.phase, 0)
            if segment.first_sample > before:
                found.append(SkippedSamples(segment.phase, range(before, segment.first_sample)))
            reached[segment.phase] = segment.end_sample
        return tuple(found)

    def passing_over(self, step: int, samples: int) -> Timeline:
        """This run, but without the ``samples`` samples that come after step ``step`` in the phase of the next step.

        The run keeps its length: the steps behind ``step`` take the samples after those. Other phases begin where they
        did.
        """
        number, done = self._place_of(step + 1)
        segment = self.segments[number]
        head = [replace(segment, steps=done)] if done else []
        rest = replace(
            segment,
            steps=segment.steps - done,
            first_sample=segment.first_sample + done * segment.batch_size + samples,
        )
        later = [
            replace(other, first_sample=other.first_sample + samples)
            if other.phase == segment.phase
            else other
            for other in self.segments[number + 1 :]
        ]
        return replace(self, segments=(*self.segments[:number], *head, rest, *later))

    def going_on_from(self, trained: Timeline) -> Timeline:
        """This run, where its first steps were ``trained``: what was passed over then stays passed over.

        Raises:
            ValueError: those steps cannot be the first of this run.
        """
        done, phase = trained.total_steps, trained.segments[-1].phase
        shift = trained.segments[-1].end_sample - self.reached_sample(phase, done)
        rest = []
        for segment, end in zip(self.segments, self._ends, strict=True):
            left = min(segment.steps, end.steps - done)
            if left > 0:
                first = segment.first_sample + (segment.steps - left) * segment.batch_size
                first += shift if segment.phase == phase else 0
                rest.append(replace(segment, steps=left, first_sample=first))
        return Timeline(self.phases, (*trained.segments, *rest))

    def until(self, step: int) -> Timeline | None:
        """The first ``step`` steps, in as few segments as can be: how often a run was started leaves no trace in it.

        None of none.
        """
        kept = []
        for segment, end in zip(self.segments, self._ends, strict=True):
            done = min(segment.steps, step - (end.steps - segment.steps))
            if done > 0:
                kept.append(replace(segment, steps=done))
        return Timeline(self.phases[: kept[-1].phase + 1], _joined(kept)) if kept else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"phases": list(self.phases), "segments": [asdict(segment) for segment in self.segments]}

    @classmethod
    def from_dict(cls, contents: Mapping[str, Any]) -> Timeline:
        """The timeline that :meth:`to_dict` described.

        Raises:
            ValueError: it is not one.
        """
        try:
            segments = tuple(_segment(entry) for entry in contents["segments"])
            return cls(tuple(str(name) for name in contents["phases"]), segments)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a timeline: {error!r}") from error

    @cached_property
    def _ends(self) -> Sequence[_Totals]:
        """What the run has come to at the end of each segment."""
        ends: list[_Totals] = []
        last = _Totals(0, 0, 0)
        for segment in self.segments:
            last = last.after(segment, segment.steps)
            ends.append(last)
        return ends

    def _totals(self, step: int) -> _Totals:
        if step == 0:
            return _Totals(0, 0, 0)
        number, done = self._place_of(step)
        before = self._ends[number - 1] if number else _Totals(0, 0, 0)
        return before.after(self.segments[number], done + 1)

    def _segment_of(self, step: int) -> tuple[Segment, int]:
        """The segment of step ``step``, and how many of its steps come before that one."""
        number, done = self._place_of(step)
        return self.segments[number], done

    def _place_of(self, step: int) -> tuple[int, int]:
        """Number of the segment of step ``step``, and how many of its steps come before that one.

        Raises:
            ValueError: the run has no such step.
        """
        if not 1 <= step <= self.total_steps:
            raise ValueError(f"the run has steps 1 to {self.total_steps:,}; asked for step {step:,}")
        number = bisect.bisect_left(self._ends, step, key=lambda end: end.steps)
        return number, step - 1 - (self._ends[number].steps - self.segments[number].steps)


@dataclass(frozen=True)
class _Totals:
    """Sums over the run up to some step."""

    steps: int
    samples: int
    tokens: int

    def after(self, segment: Segment, steps: int) -> _Totals:
        samples = steps * segment.batch_size
        return _Totals(
            self.steps + steps, self.samples + samples, self.tokens + samples * segment.sequence_length
        )


def _joined(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The same steps, where a segment that only goes on from the one before it is part of that."""
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if last and segment == replace(last, steps=segment.steps, first_sample=last.end_sample):
            joined[-1] = replace(last, steps=last.steps + segment.steps)
        else:
            joined.append(segment)
    return tuple(joined)


def _segment(entry: Mapping[str, Any]) -> Segment:
    values = {field.name: entry[field.name] for field in fields(Segment)}
    if not all(isinstance(value, int) for value in values.values()):
        raise TypeError(entry)
    return Segment(**values)


def trained_steps(state: Mapping[str, Any]) -> Timeline | None:
    """What a checkpoint's ``state.json`` says was trained on; None before the first step.

    Checkpoints of versions up to 0.1 name sums only; they are of one phase and one batch size.

    Raises:
        ValueError: the state contradicts itself.
    """
    if "position" in state:
        return Timeline.from_dict(state["position"])
    steps, samples, tokens = (int(state[key]) for key in ("step", "consumed_samples", "consumed_tokens"))
    if steps == 0:
        return None
    batch, length = samples // steps, tokens // max(samples, 1)
    if steps * batch != samples or samples * length != tokens:
        raise ValueError(f"{steps} steps do not divide {samples} samples of {tokens} tokens")
    return Timeline.of_one_phase("main", steps=steps, batch_size=batch, sequence_length=length)
