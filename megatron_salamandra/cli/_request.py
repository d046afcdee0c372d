"""What ``salamandra stop`` and ``salamandra save`` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class RequestOptions(Options):
    """Options of a request to a run."""

    run: Annotated[Path, Option("run directory", metavar="RUN", positional=True)]
    reason: Annotated[str, Option("why, for the log and the report")] = "asked on the command line"


def register_request(subparsers: Subparsers, kind: Literal["stop", "save"], text: str, effect: str) -> None:
    """Add the command that leaves a request in a run directory.

    Args:
        text: the line in the list of commands.
        effect: what the run does then, the rest of the sentence "the run will ...".
    """

    def ask(options: RequestOptions) -> int:
        from megatron_salamandra.cluster import ask_run

        ask_run(options.run, kind, options.reason)
        print(f"{options.run}: asked to {kind}; salamandra status {options.run} shows when it has")
        return 0

    add_command(
        subparsers,
        kind,
        lambda: RequestOptions,
        ask,
        text=text,
        description=f"Leaves a request in the run directory: the run will {effect}. Works for everybody who may write "
        "there, on any machine.",
    )
