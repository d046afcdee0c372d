"""``salamandra plan``: what a configuration costs, before anything is started."""

from __future__ import annotations

import argparse
import json

from megatron_salamandra.cli._command import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add ``plan`` to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help="parameters, FLOPs, memory and layout of a configuration",
        description="Reads a run configuration and prints its exact parameter count, FLOPs per token, length, "
        "memory per rank and a balanced pipeline layout. Starts nothing, needs neither torch nor a GPU.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a preset such as salamandra-7b")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="overrides, such as parallel.tensor=2"
    )
    parser.add_argument(
        "--world-size",
        type=int,
        metavar="N",
        help="ranks; checks that the layout and the batch divide (default: one replica, tensor * pipeline)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.set_defaults(handler=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.planning import make_plan, render_plan

    plan = make_plan(load_run_config(arguments.config, arguments.overrides), arguments.world_size)
    print(json.dumps(plan.to_dict(), indent=2) if arguments.json else render_plan(plan))
    return 0
