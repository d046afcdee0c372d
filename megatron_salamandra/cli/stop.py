"""``salamandra stop``: ask a run to save and end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class StopOptions(Options):
    """What ``salamandra stop`` is told."""

    run: Annotated[Path, Option("run directory", metavar="RUN", positional=True)]
    reason: Annotated[str, Option("why, for the log and the report")] = "salamandra stop"


def register(subparsers: Subparsers) -> None:
    """Add ``stop`` to the command line."""
    add_command(
        subparsers,
        "stop",
        lambda: StopOptions,
        _stop,
        text="ask a run to save and end",
        description="Leaves a request in the run directory: the run will finish its step, save and end, and is not "
        "started again by itself. Works for everybody who may write there, on any machine.",
    )


def _stop(options: StopOptions) -> int:
    from megatron_salamandra.cluster import ask_run

    ask_run(options.run, "stop", options.reason)
    print(f"{options.run}: asked to stop; salamandra status {options.run} shows when it has")
    return 0
