"""``salamandra stacks``: where each rank of a run is in its Python code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class StacksOptions(Options):
    """Options of ``salamandra stacks``."""

    run: Annotated[Path, Option("run directory", metavar="RUN", positional=True)]
    seconds: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Option("wait for answers at most so long", default_text="35 s with the usual limits", metavar="S"),
    ] = None
    threads: Annotated[bool, Option("all threads of every rank, not only main threads of groups")] = False
    json_output: Annotated[bool, Option("print one JSON object instead of text", flag="--json")] = False


def register(subparsers: Subparsers) -> None:
    """Add ``stacks`` to the command line."""
    add_command(
        subparsers,
        "stacks",
        lambda: StacksOptions,
        _stacks,
        text="Python stacks of all ranks of a run, equal ones once, and who does not answer",
        description="Leaves a request in the run directory, which each rank follows within 10 s, also while it waits "
        "for others; training is not disturbed. Works for everybody who may write there, on any machine. Exit code 1 "
        "if a rank did not answer.",
    )


def _stacks(options: StacksOptions) -> int:
    from megatron_salamandra.cluster import check_runs
    from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE
    from megatron_salamandra.hangs import ask_for_stacks, stacks_text
    from megatron_salamandra.run_directory import RunDirectory

    check_runs(options.run)
    answers = ask_for_stacks(RunDirectory(options.run), options.seconds)
    if options.json_output:
        print(json.dumps(answers.to_dict(), indent=1))
    else:
        print(stacks_text(answers, all_threads=options.threads))
    return EXIT_DONE if answers.complete else EXIT_FAILURE
