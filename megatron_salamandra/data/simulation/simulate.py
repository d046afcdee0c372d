"""What each language has got at points of a run, by the arithmetic of the stream that would deal the samples."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from megatron_salamandra.data.ledger import carried_ordinals, final_ordinals
from megatron_salamandra.data.sample_stream import SampleStream
from megatron_salamandra.data.simulation.schedule import Phase, Schedule
from salamandra_data.errors import DataError

_ANY_SEED = 0  # decides which windows, not how many


@dataclass(frozen=True)
class SimulatedPoint:
    """One source at one point of the run.

    Attributes:
        source: its name.
        run_tokens: tokens of all languages since the start of the run.
        phase_tokens: tokens of this language since the start of the phase.
        total_tokens: tokens of this language since the start of the run.
        epochs: passes over the language's text of the phase, earlier phases included unless the text is new:
            ordinal of the next sample over windows, as in the ledger of training.
    """

    phase: str
    run_tokens: int
    source: str
    language: str
    phase_tokens: int
    total_tokens: int
    epochs: float


@dataclass(frozen=True)
class LanguageInPhase:
    """What a phase is for one source.

    Attributes:
        source: its name.
        available_tokens: the text there is.
        share: exact, of the samples.
        gap_samples: expected distance between two samples of the language, 1 / share.
        revisit_tokens: tokens of all languages between two visits to the same text: windows times length over share.
    """

    source: str
    language: str
    available_tokens: int
    factor: Fraction
    share: Fraction
    gap_samples: float
    revisit_tokens: float


@dataclass(frozen=True)
class PhaseResult:
    """One phase: its languages, and the points from its start to its end, the languages of a point together."""

    name: str
    tokens: int
    languages: tuple[LanguageInPhase, ...]
    points: tuple[SimulatedPoint, ...]

    @property
    def end(self) -> tuple[SimulatedPoint, ...]:
        """All languages at the end of the phase."""
        return self.points[-len(self.languages) :]


def simulate(schedule: Schedule, points: int = 50) -> list[PhaseResult]:
    """Follow a run through its phases.

    Samples, tokens and epochs are those of :class:`SampleStream`, exact at every point, and a phase starts where
    :func:`carried_ordinals` says, as a run with ``data.continue_from`` does. So a language that goes on keeps its
    ordinal; where its text has grown, its epochs are fewer from then on, because they are passes over more text.

    Args:
        points: per phase, at equal distances; the start of a phase is one more.
    Raises:
        DataError: a phase is shorter than one sample, or a language than one window.
    """
    results: list[PhaseResult] = []
    before = _Before(0, {}, {}, 0)
    for phase in schedule.phases:
        result, before = _simulate_phase(phase, points, before)
        results.append(result)
    return results


@dataclass(frozen=True)
class _Before:
    """The run up to the start of a phase."""

    run_tokens: int
    tokens: dict[str, int]
    ordinals: dict[str, int]
    sequence_length: int


def _simulate_phase(phase: Phase, points: int, before: _Before) -> tuple[PhaseResult, _Before]:
    length = phase.sequence_length
    samples = phase.tokens // length
    if samples < 1:
        raise DataError(
            f"phase {phase.name!r}: {phase.tokens:,} tokens are less than one sample of {length:,}"
        )
    # Windows of another length are other text for the same ordinal, so every source starts anew.
    same_windows = before.sequence_length == length
    start = carried_ordinals(before.ordinals, phase.new_text) if same_windows else {}
    stream = SampleStream(phase.plan, length, _ANY_SEED, start)
    made: list[SimulatedPoint] = []
    for place in sorted({samples * point // points for point in range(points + 1)}):
        made += [
            SimulatedPoint(
                phase.name,
                before.run_tokens + place * length,
                entry.source,
                entry.language,
                entry.tokens,
                before.tokens.get(entry.source, 0) + entry.tokens,
                entry.epochs,
            )
            for entry in stream.ledger(place)
        ]
    result = PhaseResult(phase.name, samples * length, _languages(phase, length), tuple(made))
    after = _Before(
        before.run_tokens + samples * length,
        {**before.tokens, **{point.source: point.total_tokens for point in result.end}},
        final_ordinals(stream.ledger(samples), start),
        length,
    )
    return result, after


def _languages(phase: Phase, length: int) -> tuple[LanguageInPhase, ...]:
    found = []
    for source in sorted(phase.plan.sources, key=lambda source: source.name):
        share = Fraction(source.weight, phase.plan.total_weight)
        seen = (source.tokens - 1) // length * length
        found.append(
            LanguageInPhase(
                source.name,
                source.language,
                source.tokens,
                source.factor,
                share,
                float(1 / share),
                float(seen / share),
            )
        )
    return tuple(found)
