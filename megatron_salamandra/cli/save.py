"""``salamandra save``: ask a run to save and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class SaveOptions(Options):
    """What ``salamandra save`` is told."""

    run: Annotated[Path, Option("run directory", metavar="RUN", positional=True)]
    reason: Annotated[str, Option("why, for the log and the report")] = "salamandra save"


def register(subparsers: Subparsers) -> None:
    """Add ``save`` to the command line."""
    add_command(
        subparsers,
        "save",
        lambda: SaveOptions,
        _save,
        text="ask a run to save and go on",
        description="Leaves a request in the run directory: the run will save after its next step and go on. Works for "
        "everybody who may write there, on any machine.",
    )


def _save(options: SaveOptions) -> int:
    from megatron_salamandra.cluster import ask_run

    ask_run(options.run, "save", options.reason)
    print(f"{options.run}: asked to save; salamandra status {options.run} shows when it has")
    return 0
