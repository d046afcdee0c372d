"""``salamandra rehearse``: the ranks of a job, one after the other, without a GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, OneOf, Option, Options

_MEMORY = OneOf()


class RehearseOptions(Options):
    """Options of ``salamandra rehearse``."""

    config: Annotated[
        str, Option("a YAML file, or a preset such as salamandra-7b", metavar="CONFIG", positional=True)
    ]
    overrides: Annotated[
        tuple[str, ...],
        Option("overrides, such as parallel.tensor=2", metavar="KEY=VALUE", positional=True, anywhere=True),
    ] = ()
    world_size: Annotated[Count, Option("ranks of the job")]
    ranks: Annotated[
        tuple[str, ...],
        Option(
            "which ranks to run: unique (the first and the last of each pipeline stage), all, or their numbers",
            metavar="RANK",
        ),
    ] = ("unique",)
    exact: Annotated[bool, Option("run every micro-batch of a step, also those that repeat others")] = False
    cluster: Annotated[
        str | None,
        Option("a cluster profile, or a YAML file: whose GPUs must hold the peak", one_of=_MEMORY),
    ] = None
    gpu_memory_gib: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Option("memory of a GPU, which must hold the peak", metavar="GIB", one_of=_MEMORY),
    ] = None
    workers: Annotated[
        Count, Option("ranks to run at the same time", decides_output=False, default_text="one for each core")
    ] = len(os.sched_getaffinity(0))
    json_file: Annotated[
        Path | None, Option("write all that was found to this file", flag="--json", metavar="FILE")
    ] = None


def register(subparsers: Subparsers) -> None:
    """Add ``rehearse`` to the command line."""
    add_command(
        subparsers,
        "rehearse",
        lambda: RehearseOptions,
        _rehearse,
        text="run the ranks of a job on tensors without contents, before the queue",
        description="Runs the trainer's own code (model, forward, backward, reduction, update, save) of every distinct "
        "rank of a job, on tensors without contents and without the other ranks. Prints peak memory and what it "
        "consists of, collectives, messages, and the host memory of a save; ends with code 2 if shapes, collectives or "
        "messages do not fit together, or a rank does not fit on its GPU. Needs no GPU.",
    )


def _rehearse(options: RehearseOptions) -> int:
    from megatron_salamandra.cluster import load_profile
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
    from megatron_salamandra.rehearsal import RehearsalError, rehearse, render_rehearsal

    memory_gib = options.gpu_memory_gib
    if options.cluster is not None:
        memory_gib = load_profile(options.cluster).node.gpu_memory_gib
    rehearsal = rehearse(
        load_run_config(options.config, options.overrides),
        options.world_size,
        _ranks(options.ranks),
        exact=options.exact,
        gpu_memory_gib=memory_gib,
        workers=options.workers,
        show_progress=True,
    )
    print(render_rehearsal(rehearsal))
    if options.json_file is not None:
        atomic_write_bytes(options.json_file, (json.dumps(rehearsal.to_dict(), indent=2) + "\n").encode())
    if rehearsal.problems:
        raise RehearsalError("\n".join(rehearsal.problems))
    return 0


def _ranks(words: tuple[str, ...]) -> Literal["unique", "all"] | list[int]:
    from megatron_salamandra.rehearsal import RehearsalError

    if words == ("unique",):
        return "unique"
    if words == ("all",):
        return "all"
    try:
        return [int(word) for word in words]
    except ValueError:
        raise RehearsalError(
            f"--ranks {' '.join(words)}: expected unique, all, or numbers of ranks"
        ) from None
