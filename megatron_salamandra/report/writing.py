"""Writing the page of a run."""

from __future__ import annotations

from pathlib import Path

from megatron_salamandra.forecast import RunForecast, Search, pipeline_replay
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.planning import Plan, Verdict
from megatron_salamandra.report.page import render_page
from megatron_salamandra.report.plan_page import render_plan_page
from megatron_salamandra.report.reading import RunFacts, read_run
from megatron_salamandra.run_directory import RunDirectory


def write_report(run: Path, out: Path | None = None) -> tuple[Path, RunFacts]:
    """Read a run and write its page in one step; returns where it is, and what it shows.

    Args:
        out: ``RUN/report.html`` if not given.
    Raises:
        NoRun: there is no run in ``run``.
        WriteError: the page cannot be written.
    """
    place = out or RunDirectory(run).report
    facts = read_run(run)
    atomic_write_bytes(place, render_page(facts))
    return place, facts


def write_plan_page(out: Path, plan: Plan, verdict: Verdict, forecast: RunForecast, found: Search) -> None:
    """Write the page of a plan in one step.

    Raises:
        WriteError: the page cannot be written.
    """
    atomic_write_bytes(out, render_plan_page(plan, verdict, forecast, found, pipeline_replay(forecast)))
