"""``salamandra plan``: what a configuration costs, before anything is started."""

from __future__ import annotations

import json
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class PlanOptions(Options):
    """Options of ``salamandra plan``."""

    config: Annotated[
        str, Option("a YAML file, or a preset such as salamandra-7b", metavar="CONFIG", positional=True)
    ]
    overrides: Annotated[
        tuple[str, ...],
        Option("overrides, such as parallel.tensor=2", metavar="KEY=VALUE", positional=True, anywhere=True),
    ] = ()
    world_size: Annotated[
        int | None,
        Option(
            "ranks; checks that the layout and the batch divide (default: one replica, tensor * pipeline)"
        ),
    ] = None
    json_output: Annotated[bool, Option("print one JSON object instead of the tables", flag="--json")] = False


def register(subparsers: Subparsers) -> None:
    """Add ``plan`` to the command line."""
    add_command(
        subparsers,
        "plan",
        lambda: PlanOptions,
        _plan,
        text="parameters, FLOPs, memory and layout of a configuration",
        description="Reads a run configuration and prints its exact parameter count, FLOPs per token, length, "
        "memory per rank and a balanced pipeline layout. Starts nothing, needs neither torch nor a GPU.",
    )


def _plan(options: PlanOptions) -> int:
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.planning import make_plan, render_plan

    plan = make_plan(load_run_config(options.config, options.overrides), options.world_size)
    print(json.dumps(plan.to_dict(), indent=2) if options.json_output else render_plan(plan))
    return 0
