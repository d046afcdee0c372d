"""``salamandra data simulate``: what each language gets over a whole run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, Option, Options
from salamandra_data.option_groups import OutputPath

if TYPE_CHECKING:
    from megatron_salamandra.data import Schedule


class SimulateOptions(Options):
    """The options of ``salamandra data simulate``."""

    schedule: Annotated[
        str,
        Option(
            "a run configuration or preset, such as salamandra-7b-phases, or a schedule of text alone, such as "
            "configs/data/temperature-schedule.yaml",
            metavar="FILE",
            positional=True,
        ),
    ]
    points: Annotated[Count, Option("points per phase")] = 50
    max_epochs: Annotated[float, Option("warn about languages whose text is walked more often")] = 4.0
    out: Annotated[
        OutputPath | None,
        Option("directory for the CSV file and the plots", metavar="DIR", decides_output=False),
    ] = None


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "simulate",
        lambda: SimulateOptions,
        _run,
        text="follow a run through its phases: tokens, epochs and repetition of each language",
        description="Reads a schedule of phases (token counts or blend plans, factors or temperatures, lengths) and "
        "prints what each language has got at the end of each phase, with the arithmetic that deals the samples in "
        "training. Needs no shards. With --out also writes simulation.csv and plots.",
    )


def _read_schedule(reference: str) -> Schedule:
    """The phases of a run configuration, or of a schedule of text alone, which lists them."""
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.data import Schedule
    from megatron_salamandra.foundation.yaml_files import read_yaml_mapping

    path = Path(reference)
    is_file = path.is_file() or (path.suffix in (".yaml", ".yml") and not path.exists())
    if is_file and (not path.exists() or "sequence_length" in read_yaml_mapping(path)):
        return Schedule.load(path)
    return Schedule.of_config(load_run_config(reference))


def _run(options: SimulateOptions) -> int:
    from megatron_salamandra.data import (
        phase_tables,
        repeated_languages,
        simulate,
        simulation_csv,
        simulation_plot,
    )
    from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
    from salamandra_data.blend_plan import factor_warnings
    from salamandra_data.figures import check_matplotlib, png, svg

    if options.out:
        check_matplotlib()
    schedule = _read_schedule(options.schedule)
    results = simulate(schedule, options.points)
    for result, table in zip(results, phase_tables(results), strict=True):
        print(f"{result.name}: {result.tokens:,} tokens\n{table}\n")
    print(f"the run: {sum(result.tokens for result in results):,} tokens")
    for phase in schedule.phases:
        for warning in factor_warnings(phase.plan, phase.factors) if phase.factors else []:
            print(f"warning: {phase.name}: {warning}", file=sys.stderr)
    if repeated := repeated_languages(results, options.max_epochs):
        print(f"warning: walked more than {options.max_epochs:g} times: {repeated}", file=sys.stderr)
    if options.out:
        drawing = simulation_plot(results)
        for name, contents in (
            ("simulation.csv", simulation_csv(results)),
            ("simulation.svg", svg(drawing).encode()),
            ("simulation.png", png(drawing)),
        ):
            atomic_write_bytes(options.out / name, contents)
            print(options.out / name)
    return 0
