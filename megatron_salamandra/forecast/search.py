"""The fastest layouts that fit."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import yaml

from megatron_salamandra.config import ConfigError, Layout, RunConfig
from megatron_salamandra.forecast.candidates import Candidate, candidates
from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.forecast.of_config import workload_of
from megatron_salamandra.forecast.rates import Rates
from megatron_salamandra.forecast.step_time import StepSeconds, least_seconds, step_seconds
from megatron_salamandra.forecast.workload import Workload
from megatron_salamandra.planning import Verdict, current_stages, memory_per_rank, verdict_of

_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """A layout that fits, with its time."""

    candidate: Candidate
    work: Workload
    step: StepSeconds
    verdict: Verdict

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs."""
        return self.work.tokens_per_step / self.step.total


@dataclass(frozen=True)
class Search:
    """What was found for one configuration.

    Attributes:
        best: the fastest that fit, fastest first; empty if none does.
        looked_at: layouts whose numbers divide.
        fitting: those of them that fit into memory.
        frontier: layouts that are faster than every one that needs less memory, by memory.
        smallest: the layout that needs the least memory, for a search without a result.
    """

    best: tuple[Found, ...]
    looked_at: int
    fitting: int
    frontier: tuple[Found, ...]
    smallest: tuple[Candidate, Verdict]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "looked_at": self.looked_at,
            "fitting": self.fitting,
            "best": [
                {
                    **one.candidate.keys,
                    "step_seconds": one.step.total,
                    "step_parts": one.step.parts(),
                    "needed_bytes": one.verdict.needed_bytes,
                }
                for one in self.best
            ],
            "why_second_lost": self.why_second_lost(),
        }

    def why_second_lost(self) -> str | None:
        """Which part of a step makes the second one slower than the first."""
        if len(self.best) < 2:
            return None
        first, second = self.best[:2]
        slower = {name: seconds - first.step.parts()[name] for name, seconds in second.step.parts().items()}
        name = max(slower, key=lambda part: slower[part])
        share = second.step.total / first.step.total - 1
        return f"{share:.1%} slower: {slower[name] * 1e3:+,.0f} ms of {PART_NAMES.get(name, name)}"


PART_NAMES = {
    "matrices": "matrix products of the layers",
    "attention": "attention",
    "head": "head and loss",
    "elementwise": "norms, residuals, rotation, activation",
    "recompute": "what is computed again in backward",
    "tensor": "tensor parallel messages, not hidden",
    "context": "context parallel messages, not hidden",
    "pipeline": "waiting for other stages",
    "data": "gradients and weights on the network, not hidden",
    "optimizer": "optimizer",
    "fixed": "fixed cost",
}
"""Parts of a step in words."""


def search_layouts(config: RunConfig, machine: Machine, gpus: int, rates: Rates | None = None) -> Search:
    """Look at every layout of the phase that takes most tokens; memory is that of all phases.

    Only times that may be among the best are simulated: a step is never shorter than the work of its busiest rank.

    Raises:
        ConfigError: no layout divides the GPUs and the batch.
    """
    rates = rates or Rates()
    numbers = range(len(config.phase_names))
    main = max(
        numbers, key=lambda number: config.phase_steps(number) * config.in_phase(number).tokens_per_step
    )
    looked_at = fitting = 0
    ordered: list[tuple[float, int, Candidate, Workload, Verdict]] = []
    smallest: tuple[Candidate, Verdict] | None = None
    for candidate in candidates(config.in_phase(main), machine, gpus):
        verdict = _verdict(config, candidate, machine)
        if verdict is None:
            continue
        looked_at += 1
        if smallest is None or verdict.needed_bytes < smallest[1].needed_bytes:
            smallest = candidate, verdict
        if not verdict.fits:
            continue
        fitting += 1
        work = workload_of(candidate.config, candidate.layout)
        ordered.append((least_seconds(work, machine, rates), looked_at, candidate, work, verdict))
    if smallest is None:
        config.validate_for_world(gpus)  # says what does not divide
        raise ConfigError(f"no layout of {config.model.name} divides {gpus} GPUs")
    ordered.sort(key=lambda entry: entry[:2])
    found: list[Found] = []
    for least, _, candidate, work, verdict in ordered:
        if len(found) >= _SHOWN and least > heapq.nsmallest(_SHOWN, (one.step.total for one in found))[-1]:
            break
        found.append(Found(candidate, work, step_seconds(work, machine, rates), verdict))
    found.sort(key=lambda one: (one.step.total, one.verdict.needed_bytes))
    frontier: list[Found] = []
    for least, _, candidate, work, verdict in sorted(ordered, key=lambda entry: entry[4].needed_bytes):
        if not frontier or least < frontier[-1].step.total:
            one = Found(candidate, work, step_seconds(work, machine, rates), verdict)
            if not frontier or one.step.total < frontier[-1].step.total:
                frontier.append(one)
    return Search(tuple(found[:_SHOWN]), looked_at, fitting, tuple(frontier), smallest)


def _verdict(config: RunConfig, candidate: Candidate, machine: Machine) -> Verdict | None:
    """Of the phase that needs most memory; None where the layout does not divide one of the phases."""
    if not config.phases:
        return _verdict_of_phase(candidate.config, candidate.layout, machine)
    keys = candidate.config
    whole = config.model_copy(update={"parallel": keys.parallel, "training": keys.training})
    verdicts = []
    for number in range(len(config.phase_names)):
        phase = whole.in_phase(number)
        try:
            layout = phase.validate_for_world(candidate.layout.world_size)
        except ConfigError:
            return None
        verdicts.append(_verdict_of_phase(phase, layout, machine))
    return max(verdicts, key=lambda verdict: verdict.needed_bytes)


def _verdict_of_phase(phase: RunConfig, layout: Layout, machine: Machine) -> Verdict:
    ranks = memory_per_rank(phase, layout, current_stages(phase.model, phase.parallel))
    return verdict_of(ranks, machine.memory_gib)


def as_yaml(candidate: Candidate, extends: str, config: RunConfig) -> str:
    """The configuration file of a layout: what it extends, and the keys that differ from ``config``."""
    sections: dict[str, Any] = {"extends": extends}
    for key, value in candidate.keys.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) != value:
            sections.setdefault(section, {})[name] = value
    return yaml.safe_dump(sections, sort_keys=False)
