"""``salamandra status``: what a run is doing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class StatusOptions(Options):
    """Options of ``salamandra status``."""

    run: Annotated[Path, Option("run directory", metavar="RUN", positional=True)]
    json_output: Annotated[bool, Option("print one JSON object instead of text", flag="--json")] = False


def register(subparsers: Subparsers) -> None:
    """Add ``status`` to the command line."""
    add_command(
        subparsers,
        "status",
        lambda: StatusOptions,
        _status,
        text="what a run is doing: step, rate, time left, time limit, saves, incidents",
        description="Reads a run directory alone, so it works on any machine that sees it.",
    )


def _status(options: StatusOptions) -> int:
    from megatron_salamandra.cluster import run_status, status_text

    status = run_status(options.run)
    print(json.dumps(status.to_dict(), indent=1) if options.json_output else status_text(status))
    return 0
