"""The samples of a run over all its phases: a stream for each, and where its sources start in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from megatron_salamandra.config import RunConfig
from megatron_salamandra.data.block_checks import BlockChecks
from megatron_salamandra.data.ledger import SourceLedger, carried_ordinals, final_ordinals
from megatron_salamandra.data.sample_stream import SampleStream
from megatron_salamandra.timeline import Timeline
from salamandra_data.blend_plan import BlendPlan


@dataclass(frozen=True)
class PhaseStream:
    """The text of one phase.

    Attributes:
        start_ordinals: name of a source -> ordinal of its first sample, of all sources that a phase before has drawn.
    """

    name: str
    plan: BlendPlan
    stream: SampleStream
    start_ordinals: Mapping[str, int]


class RunStream:
    """The streams of a run's phases, each going on where the one before it stopped.

    Where the windows of a phase are of another length than those before, an ordinal would stand for other text: every
    source then starts at its first window. So does a source of ``new_text``.

    Args:
        config: of the run.
        plans: of the phases, in order; later ones may be missing.
        timeline: of the run; what it passes over counts for where the next phase starts.
        start_ordinals: of the first phase, if the run goes on from another one.
        checks: of the shards that are read; nothing is checked when not given.

    Raises:
        DataError: a phase cannot be dealt from its plan.
    """

    def __init__(
        self,
        config: RunConfig,
        plans: Sequence[BlendPlan],
        timeline: Timeline,
        start_ordinals: Mapping[str, int] | None = None,
        checks: BlockChecks | None = None,
    ) -> None:
        self.timeline, self.checks = timeline, checks
        self._config, self._plans, self._first_ordinals = config, plans, dict(start_ordinals or {})
        phases: list[PhaseStream] = []
        for number, (name, plan) in enumerate(zip(config.phase_names, plans, strict=False)):
            length = config.in_phase(number).data.sequence_length
            start = self._first_ordinals
            if phases:
                before = phases[-1]
                reached = timeline.reached_sample(number - 1, timeline.last_step(number - 1))
                start = {}
                if before.stream.sequence_length == length:
                    ordinals = final_ordinals(before.stream.ledger(reached), before.start_ordinals)
                    start = carried_ordinals(ordinals, config.phases[name].new_text)
            phases.append(
                PhaseStream(
                    name, plan, SampleStream(plan, length, config.training.seed, start, checks=checks), start
                )
            )
        self.phases = tuple(phases)

    def on(self, timeline: Timeline) -> RunStream:
        """The same text dealt along another timeline."""
        return RunStream(self._config, self._plans, timeline, self._first_ordinals, self.checks)

    def at(self, step: int) -> PhaseStream:
        """The phase of step ``step``; the first one before any step."""
        return self.phases[self.timeline.phase(max(step, 1))]

    def ledger(self, step: int) -> list[SourceLedger]:
        """What the run has drawn from each source after ``step`` steps, over its phases.

        Samples and tokens are sums over the phases; ordinal and epochs are those of the latest phase with the source.
        """
        found: dict[str, SourceLedger] = {}
        for number in range(self.timeline.phase(max(step, 1)) + 1):
            skipped = [passed.samples for passed in self.timeline.skipped(step) if passed.phase == number]
            reached = self.timeline.reached_sample(number, step)
            for entry in self.phases[number].stream.ledger(reached, skipped):
                if (earlier := found.get(entry.source)) is not None:
                    entry = replace(
                        entry,
                        samples=earlier.samples + entry.samples,
                        tokens=earlier.tokens + entry.tokens,
                    )
                found[entry.source] = entry
        return [found[source] for source in sorted(found)]

    def ordinals(self, step: int) -> dict[str, int]:
        """Where each source stands after ``step`` steps: the ordinal of its sample that comes next."""
        number = self.timeline.phase(max(step, 1))
        phase = self.phases[number]
        return final_ordinals(
            phase.stream.ledger(self.timeline.reached_sample(number, step)), phase.start_ordinals
        )

    def fingerprints(self, step: int) -> list[str]:
        """Of the streams of all phases up to that of step ``step``."""
        last = self.timeline.phase(max(step, 1))
        return [phase.stream.fingerprint() for phase in self.phases[: last + 1]]
