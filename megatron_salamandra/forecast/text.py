"""The forecast of a run as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from megatron_salamandra.forecast.run_forecast import PhaseForecast, RunForecast
from megatron_salamandra.forecast.search import PART_NAMES, Search

_LEAST_SHARE = 0.0005
"""Parts of a step below this are not listed."""


def render_forecast(forecast: RunForecast) -> str:
    """As a page of aligned text."""
    return "\n".join(_lines(forecast))


def _lines(forecast: RunForecast) -> Iterator[str]:
    machine = forecast.machine
    yield (
        f"Time on {forecast.gpus:,} GPUs ({machine.gpu}, {machine.gpus_per_node} a node), estimated; nothing of it is "
        "measured on this cluster:"
    )
    for phase in forecast.phases:
        named = f"phase {phase.name}: " if len(forecast.phases) > 1 else ""
        yield (
            f"  {named}{phase.step.total:.3f} s a step, {phase.tokens_per_second:,.0f} tokens/s, "
            f"{phase.tokens_per_second / forecast.gpus:,.0f} a GPU, {forecast.mfu(phase):.1%} of the bf16 peak"
        )
    yield from _parts(forecast.longest, len(forecast.phases) > 1)
    yield f"  {forecast.days:,.1f} days of steps, {forecast.gpu_hours:,.0f} GPU-hours"
    yield (
        f"  {forecast.checkpoint_bytes / 1e9:,.0f} GB a checkpoint; the time of a save is not estimated, "
        "as profiles say nothing of file systems"
    )
    if forecast.megawatt_hours is not None:
        yield (
            f"  at most {forecast.megawatt_hours:,.1f} MWh for the GPUs at {machine.watts:,.0f} W; hosts, network and "
            "cooling come on top"
        )
    if forecast.price is not None:
        yield f"  {forecast.price:,.0f} {machine.currency} at {machine.gpu_hour_price:g} a GPU-hour"


def _parts(phase: PhaseForecast, named: bool) -> Iterator[str]:
    where = f" of phase {phase.name}" if named else ""
    yield f"  where a step{where} goes:"
    for name, seconds in sorted(phase.step.parts().items(), key=lambda pair: -pair[1]):
        share = seconds / phase.step.total
        if share >= _LEAST_SHARE:
            yield f"    {PART_NAMES.get(name, name):<44}{seconds * 1e3:>10,.1f} ms{share:>8.1%}"


def render_search(found: Search, memory_gib: float, forecast: RunForecast) -> str:
    """The layouts that a search found, beside the one that was asked about."""
    return "\n".join(_search_lines(found, memory_gib, forecast))


def _search_lines(found: Search, memory_gib: float, forecast: RunForecast) -> Iterator[str]:
    yield f"Other layouts: {found.looked_at:,} divide, {found.fitting:,} of them fit {memory_gib:g} GiB"
    if not found.best:
        candidate, verdict = found.smallest
        yield f"  none fits; the smallest is {candidate.describe()}: {verdict.sentence()}"
        return
    asked = forecast.longest
    for number, one in enumerate(found.best, 1):
        yield (
            f"  {number}. {one.step.total:>8.3f} s, {one.verdict.needed_bytes / 2**30:>5.1f} GiB  "
            f"{one.candidate.describe()}"
        )
    yield f"  yours {asked.step.total:>7.3f} s: {asked.step.total / found.best[0].step.total:.2f} times the first"
    if why := found.why_second_lost():
        yield f"  the second is {why}"
