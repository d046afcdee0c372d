"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from megatron_salamandra.cluster import Incident
from megatron_salamandra.report import texts
from megatron_salamandra.report.curve import Curve
from megatron_salamandra.report.drawing import Mark, Stretch, share_bar, sparkline, step_curve
from megatron_salamandra.report.plan_check import Comparison
from megatron_salamandra.report.reading import RunFacts

_FIRST_ROWS, _LAST_ROWS = 40, 120
_MOST_MARKS = 200
_CONFIG_CHARACTERS = 60_000
_MARKED = ("skip", "roll back", "crash", "hang", "node", "limit", "broken off", "failure")

_SMALL: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
    ("lr", "Learning rate", lambda value: f"{value:.2g}", True),
    ("grad_norm", "Gradient norm, before clipping", texts.short, False),
    ("tokens_per_second", "Tokens per second, steps alone", texts.short, True),
    ("mfu", "Model FLOPs utilisation", lambda value: f"{value:.3g}", True),
    ("step_seconds", "Seconds of a step", texts.short, True),
    ("peak_memory_bytes", "Peak memory of rank 0", texts.size, True),
)


def render_page(facts: RunFacts) -> bytes:
    """The page as UTF-8."""
    incidents, curves = facts.past.incidents, facts.steps.curves
    marks = _marks(incidents)
    stretches = _stretches(facts)
    end = facts.status.steps or facts.steps.last_step
    if facts.status.state != "running":
        end = facts.steps.last_step  # no empty paper for steps that may never come

    def draw(
        curve: Curve, name: str, text: Callable[[float], str], from_zero: bool, wide: bool = False
    ) -> Markup:
        shown = marks if wide else ()
        return step_curve(
            curve,
            name=name,
            text=text,
            last_step=end,
            stretches=stretches,
            marks=shown,
            wide=wide,
            from_zero=from_zero,
            smooth=curve is not curves["lr"],
        )

    loss = facts.steps.curve("loss")
    late = loss.since(facts.steps.last_step // 5)
    skips = [incident for incident in incidents if incident.kind == "skip"]
    page = _template().render(
        facts=facts,
        status=facts.status,
        title=facts.path.resolve().name,
        kinds=Counter(incident.kind for incident in incidents).most_common(),
        loss=draw(loss, "loss over steps", texts.short, False, True) if loss.spans else None,
        late=draw(late, "loss without its first fifth", texts.short, False, True)
        if len(late.spans) > 20
        else None,
        skips=skips,
        faults=[incident for incident in incidents if incident.kind != "skip"],
        smoothed=loss.smoothed()[-1][1] if loss.spans else None,
        charts=[
            (title, draw(curves[name], title, text, zero))
            for name, title, text, zero in _SMALL
            if curves[name].spans
        ],
        unknown=[title for name, title, _, _ in _SMALL if not curves[name].spans],
        others=[
            (name, draw(curve, name, texts.short, False))
            for name, curve in sorted(facts.steps.others.items())
            if curve.spans
        ],
        parts_of_step=_parts_of_step(facts),
        time_shares=[(part.name, part.seconds) for part in facts.time.parts],
        cut=_cut,
        bar=share_bar,
        spark=lambda one: sparkline(one.bits_per_byte, f"bits per byte of {one.name}", end),
        tokens_of=_tokens_by_language(facts),
        quantity=_quantity,
        config_text=texts.clean(facts.config_text, _CONFIG_CHARACTERS),
        bad_losses=loss.not_finite,
    )
    return page.encode("utf-8", "replace")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_printable,
    )
    environment.filters.update(
        short=texts.short, size=texts.size, span=texts.span, moment=texts.moment, clean=texts.clean
    )
    return environment.get_template("page.html.jinja")


def _printable(value: Any) -> Any:
    return value if isinstance(value, Markup | int | float) else texts.clean(str(value), most=1 << 20)


def _marks(incidents: Sequence[Incident]) -> list[Mark]:
    """Of the incidents that bend a curve; of very many, an even choice."""
    found = [
        Mark(incident.step, f"step {incident.step:,}: {incident.kind}: {texts.clean(incident.text, 200)}")
        for incident in incidents
        if incident.step is not None and incident.kind in _MARKED
    ]
    return found[:: len(found) // _MOST_MARKS + 1]


def _stretches(facts: RunFacts) -> list[Stretch]:
    if len(facts.phases) < 2:
        return []
    reached = max(facts.steps.last_step, 1)
    return [
        Stretch(
            texts.clean(phase.name, 40), phase.first_step, min(phase.first_step + phase.steps - 1, reached)
        )
        for phase in facts.phases
        if phase.first_step <= reached
    ]


def _parts_of_step(facts: RunFacts) -> list[tuple[str, float]]:
    """Seconds by part of a step, and by what passes between two, largest first."""
    inside = {part: seconds for part, seconds in facts.steps.seconds.items() if part != "step"}
    rest = facts.steps.seconds.get("step", 0.0) - sum(inside.values())
    parts = {part.replace("_", " and "): seconds for part, seconds in inside.items()}
    if rest > 0:
        parts["rest of the step"] = rest
    parts |= {f"{part} between steps": seconds for part, seconds in facts.steps.between.items()}
    return sorted(
        ((texts.clean(part, 60), seconds) for part, seconds in parts.items()), key=lambda pair: -pair[1]
    )


def _tokens_by_language(facts: RunFacts) -> dict[str, int]:
    if facts.steps.languages:
        return {name: tokens for name, (tokens, _) in facts.steps.languages.items()}
    found: dict[str, int] = {}
    for one in facts.seen.sources if facts.seen else ():
        found[one.language] = found.get(one.language, 0) + one.tokens
    return found


def _cut(rows: Sequence[Any]) -> tuple[Sequence[Any], int, Sequence[Any]]:
    """The first rows, how many are left out, and the last ones."""
    if len(rows) <= _FIRST_ROWS + _LAST_ROWS:
        return rows, 0, ()
    return rows[:_FIRST_ROWS], len(rows) - _FIRST_ROWS - _LAST_ROWS, rows[-_LAST_ROWS:]


def _quantity(value: float | None, comparison: Comparison, missing: str) -> str:
    if value is None:
        return missing
    if comparison.unit == "bytes":
        return texts.size(value)
    if comparison.unit in ("steps", "tokens", "parameters"):
        return f"{value:,.0f}"
    return f"{texts.short(value)} {comparison.unit}".strip()
