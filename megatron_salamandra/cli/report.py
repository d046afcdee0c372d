"""``salamandra report``: what a run was, on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class ReportOptions(Options):
    """Options of ``salamandra report``."""

    run: Annotated[Path, Option("run directory", metavar="RUN", positional=True)]
    out: Annotated[Path | None, Option("the page (default: RUN/report.html)", metavar="FILE")] = None
    json_output: Annotated[
        bool,
        Option(
            "print the page's numbers as one JSON object, and write a page only with --out", flag="--json"
        ),
    ] = False


def register(subparsers: Subparsers) -> None:
    """Add ``report`` to the command line."""
    add_command(
        subparsers,
        "report",
        lambda: ReportOptions,
        _report,
        text="one page of a run: curves, languages, incidents, time, plan against reality",
        description="Reads a run directory, of a run that runs, has ended or has failed, and writes one HTML file that "
        "needs nothing else. What is missing or damaged is named on the page. Writes nothing but that file.",
    )


def _report(options: ReportOptions) -> int:
    from megatron_salamandra.report import read_run, report_numbers, write_report

    if options.json_output and options.out is None:
        print(json.dumps(report_numbers(read_run(options.run)), indent=1, ensure_ascii=False))
        return 0
    place, facts = write_report(options.run, options.out)
    print(json.dumps(report_numbers(facts), indent=1, ensure_ascii=False) if options.json_output else place)
    return 0
