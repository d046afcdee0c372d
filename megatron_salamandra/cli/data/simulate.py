"""``salamandra data simulate``: what each language gets over a whole run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._options import add_command, at_least_one, place_to_write


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "simulate",
        _run,
        text="follow a run through its phases: tokens, epochs and repetition of each language",
        description="Reads a schedule of phases (token counts or blend plans, factors or temperatures, lengths) and "
        "prints what each language has got at the end of each phase, with the arithmetic that deals the samples in "
        "training. Needs no shards. With --out also writes simulation.csv and plots.",
    )
    parser.add_argument(
        "schedule", type=Path, metavar="FILE", help="YAML, such as configs/data/salamandra-schedule.yaml"
    )
    parser.add_argument(
        "--points", type=at_least_one, default=50, metavar="N", help="points per phase (default: 50)"
    )
    parser.add_argument(
        "--max-epochs",
        type=float,
        default=4.0,
        metavar="X",
        help="warn about languages whose text is walked more often (default: 4)",
    )
    parser.add_argument(
        "--out", type=place_to_write, metavar="DIR", help="directory for the CSV file and the plots"
    )


def _run(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.data.simulation import Schedule, simulate
    from megatron_salamandra.data.simulation.report import (
        phase_tables,
        repeated_languages,
        simulation_csv,
        simulation_plot,
    )
    from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
    from salamandra_data.blend_plan.report import factor_warnings
    from salamandra_data.figures import check_matplotlib, png, svg

    if arguments.out:
        check_matplotlib()
    schedule = Schedule.load(arguments.schedule)
    results = simulate(schedule, arguments.points)
    for result, table in zip(results, phase_tables(results), strict=True):
        print(f"{result.name}: {result.tokens:,} tokens\n{table}\n")
    print(f"the run: {sum(result.tokens for result in results):,} tokens")
    for phase in schedule.phases:
        for warning in factor_warnings(phase.plan, phase.factors) if phase.factors else []:
            print(f"warning: {phase.name}: {warning}", file=sys.stderr)
    if repeated := repeated_languages(results, arguments.max_epochs):
        print(f"warning: walked more than {arguments.max_epochs:g} times: {repeated}", file=sys.stderr)
    if arguments.out:
        drawing = simulation_plot(results)
        for name, contents in (
            ("simulation.csv", simulation_csv(results)),
            ("simulation.svg", svg(drawing).encode()),
            ("simulation.png", png(drawing)),
        ):
            atomic_write_bytes(arguments.out / name, contents)
            print(arguments.out / name)
    return 0
