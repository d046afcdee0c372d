"""One walk over ``metrics.jsonl``: curves of every number, time by part, and what each source has given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from megatron_salamandra.foundation.json_files import number_in, whole_in
from megatron_salamandra.report.curve import Curve
from megatron_salamandra.run_directory import StepRecord

CURVES = (
    "loss",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "peak_memory_bytes",
)
"""Metrics with a place of their own on the page."""
_COUNTED_ELSEWHERE = (
    "tokens",
    "skipped",
    "skipped_updates",
    "languages",
    "sources",
    "tokens_per_second_per_rank",
    "model_flops_per_second_per_rank",
    "seconds",
    "seconds_between_steps",
)
_MOST_OTHERS = 24
_SPANS_OF_OTHERS = 60


@dataclass
class StepRecords:
    """What the steps of a run say together.

    Attributes:
        steps: how many are recorded; ``last_step``: the last one, 0 before the first.
        tokens: trained on up to it; None if that is not recorded.
        curves: by name of the metric: those of :data:`CURVES`, the seconds of a step (``step_seconds``), the FLOP/s of
            a rank (``flops``), and metrics of others.
        unseen: names of metrics that there was no room for.
        seconds: by part of a step, and ``between`` by part of what passes between steps: sums over all steps.
        skipped: updates that were skipped.
        languages, sources: tokens and epochs up to the last step that tells them, by name; ``seen_at``: that step.
    """

    steps: int = 0
    last_step: int = 0
    tokens: int | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    between: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    languages: dict[str, tuple[int, float]] = field(default_factory=dict)
    sources: dict[str, tuple[int, float]] = field(default_factory=dict)
    seen_at: int = 0

    def curve(self, name: str) -> Curve:
        """The curve of a metric; an empty one if it was never recorded."""
        return self.curves.get(name) or Curve()

    @property
    def others(self) -> dict[str, Curve]:
        """Curves of metrics that the page knows nothing of, by name."""
        known = (*CURVES, "step_seconds", "flops")
        return {name: curve for name, curve in self.curves.items() if name not in known}


def walk_steps(records: Iterable[StepRecord]) -> StepRecords:
    """Read the steps of a run once, in memory that does not grow with their number."""
    # There may be millions: what is done for each is kept to a minimum, and the ledger, a sum, is read at the end.
    found = StepRecords(curves={name: Curve() for name in (*CURVES, "step_seconds", "flops")})
    own = [(name, found.curves[name]) for name in CURVES]
    own.append(("model_flops_per_second_per_rank", found.curves["flops"]))
    languages: Any = None
    sources: Any = None
    for record in records:
        values, step = record.values, record.step
        found.steps += 1
        for name, curve in own:
            value = values.get(name)
            if type(value) is float:
                curve.add(step, value)
            elif value is not None:
                _add(curve, step, value)
        parts = values.get("seconds")
        if isinstance(parts, dict):
            _add(found.curves["step_seconds"], step, parts.get("step"))
            _sum(found.seconds, parts)
        between = values.get("seconds_between_steps")
        if isinstance(between, dict):
            _sum(found.between, between)
        if (tokens := whole_in(values.get("tokens"))) is not None:
            found.tokens = tokens
        found.last_step = step
        for name in values:
            if name not in _KNOWN:
                _add_other(found, step, name, values[name])
        if values.get("skipped") is True:
            found.skipped += 1
        if "languages" in values:
            languages, sources, found.seen_at = values["languages"], values.get("sources"), step
    found.languages, found.sources = _seen(languages), _seen(sources)
    return found


_KNOWN = frozenset((*CURVES, *_COUNTED_ELSEWHERE))


def _add(curve: Curve, step: int, value: Any) -> None:
    if (number := number_in(value)) is not None:
        curve.add(step, number)


def _add_other(found: StepRecords, step: int, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for part, inside in value.items():
            _add_other(found, step, f"{name}/{part}", inside)
    elif number_in(value) is not None:
        if name not in found.curves:
            if len(found.others) >= _MOST_OTHERS:
                if len(found.unseen) < 1000:
                    found.unseen.add(name)
                return
            found.curves[name] = Curve(_SPANS_OF_OTHERS)
        _add(found.curves[name], step, value)


def _sum(sums: dict[str, float], parts: Mapping[str, Any]) -> None:
    for part, seconds in parts.items():
        number = seconds if type(seconds) is float else number_in(seconds)
        if number is not None and 0.0 <= number < math.inf:
            sums[part] = sums.get(part, 0.0) + number


def _seen(entries: Any) -> dict[str, tuple[int, float]]:
    found = {}
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if isinstance(entry, dict):
            tokens, epochs = whole_in(entry.get("tokens")), number_in(entry.get("epochs"))
            if tokens is not None and epochs is not None:
                found[str(name)] = (tokens, epochs)
    return found
