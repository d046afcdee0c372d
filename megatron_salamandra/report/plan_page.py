"""The page of a plan: one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from megatron_salamandra.forecast import PART_NAMES, Pass, RunForecast, Search
from megatron_salamandra.planning import Plan, Verdict
from megatron_salamandra.report import texts
from megatron_salamandra.report.drawing import share_bar
from megatron_salamandra.report.plan_drawing import MEMORY_PARTS, frontier_points, memory_bars, schedule_bars


def render_plan_page(
    plan: Plan, verdict: Verdict, forecast: RunForecast, found: Search, passes: list[Pass]
) -> bytes:
    """The page as UTF-8.

    Args:
        passes: of the pipeline's schedule; empty without one.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(span=texts.span, clean=texts.clean)
    step = forecast.longest.step
    parts = sorted(step.parts().items(), key=lambda part: -part[1])
    shares = [(PART_NAMES[name], seconds / step.total) for name, seconds in parts if seconds > 0]
    gib = forecast.machine.memory_gib
    page = environment.get_template("plan_page.html.jinja").render(
        plan=plan,
        verdict=verdict,
        forecast=forecast,
        found=found,
        step=step,
        parts=[(PART_NAMES[name], seconds) for name, seconds in parts if seconds > 0],
        bar=share_bar(shares, "time by part of a step"),
        memory=memory_bars(plan.memory, gib),
        memory_parts=MEMORY_PARTS,
        schedule=schedule_bars(passes, forecast.layout.pipeline_parallel_size) if passes else None,
        frontier=frontier_points(found, gib) if found.frontier else None,
        gib=1 << 30,
    )
    return page.encode("utf-8", "replace")
