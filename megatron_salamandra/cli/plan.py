"""``salamandra plan``: what a configuration costs, before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, OptionError, Options


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
    cluster: Annotated[
        str | None,
        Option("profile of a cluster, by name or file: estimates time on it too", metavar="NAME"),
    ] = None
    nodes: Annotated[
        int | None, Option("nodes of that cluster; gives the ranks in place of --world-size")
    ] = None
    best: Annotated[
        Path | None,
        Option("write a configuration with the fastest layout that fits to this file", metavar="FILE"),
    ] = None
    html: Annotated[
        Path | None,
        Option("write a page with memory, schedule and layouts to this file", metavar="FILE"),
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

    config = load_run_config(options.config, options.overrides)
    if options.cluster is None:
        if options.best is not None or options.html is not None:
            raise OptionError("--best and --html need --cluster: they are about its GPUs\n  name a cluster")
        if options.nodes is not None:
            raise OptionError(
                "--nodes needs --cluster: without one, nodes have no GPUs\n  name a cluster, or --world-size"
            )
        plan = make_plan(config, options.world_size)
        print(json.dumps(plan.to_dict(), indent=2) if options.json_output else render_plan(plan))
        return 0

    from megatron_salamandra.cluster import load_profile
    from megatron_salamandra.forecast import (
        as_yaml,
        forecast_run,
        render_forecast,
        render_search,
        search_layouts,
    )
    from megatron_salamandra.foundation.atomic_files import atomic_write_text
    from megatron_salamandra.planning import verdict_of

    profile = load_profile(options.cluster)
    machine, gpus = profile.machine, _gpus(options, profile.node.gpus)
    plan, forecast = make_plan(config, gpus), forecast_run(config, machine, gpus)
    verdict = verdict_of(plan.memory, machine.memory_gib)
    found = search_layouts(config, machine, gpus)
    if options.json_output:
        told = {"fits": verdict.fits, "verdict": verdict.sentence(), "layouts": found.to_dict()}
        print(json.dumps({**plan.to_dict(), "forecast": forecast.to_dict(), **told}, indent=2))
    else:
        shown = [render_plan(plan), f"Memory {verdict.sentence()}", render_forecast(forecast)]
        print(*shown, render_search(found, machine.memory_gib, forecast), sep="\n\n")
    if options.best is not None:
        if not found.best:
            raise OptionError("--best: no layout fits\n  name more nodes, or a cluster with larger GPUs")
        atomic_write_text(options.best, as_yaml(found.best[0].candidate, options.config, config))
    if options.html is not None:
        from megatron_salamandra.report import write_plan_page

        write_plan_page(options.html, plan, verdict, forecast, found)
    return 0


def _gpus(options: PlanOptions, of_node: int) -> int:
    if (options.nodes is None) is (options.world_size is None):
        raise OptionError("--cluster needs the size of the job\n  name either --nodes or --world-size")
    if options.nodes is not None and options.nodes < 1:
        raise OptionError(f"--nodes {options.nodes} is no number of nodes\n  name 1 or more")
    return options.world_size or (options.nodes or 0) * of_node
