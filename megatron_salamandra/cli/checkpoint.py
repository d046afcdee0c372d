"""``salamandra checkpoint``: list, inspect and verify checkpoints. Never imports torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, OptionError, Options


class RunOptions(Options):
    """Options of ``salamandra checkpoint list``."""

    run: Annotated[Path, Option("run directory, or its checkpoints/", metavar="RUN_DIR", positional=True)]


class CheckpointOptions(Options):
    """Options of commands on one checkpoint."""

    checkpoint: Annotated[
        Path,
        Option("step-NNNNNNNN, or a run directory for the latest", metavar="CHECKPOINT", positional=True),
    ]


def register(subparsers: Subparsers) -> None:
    """Add the ``checkpoint`` group."""
    group = subparsers.add_parser("checkpoint", help="list, inspect and verify checkpoints")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_command(
        commands,
        "list",
        lambda: RunOptions,
        _list,
        text="complete checkpoints of a run, oldest first",
        description="Prints step, tokens, layout and size of each complete checkpoint of a run.",
    )
    add_command(
        commands,
        "inspect",
        lambda: CheckpointOptions,
        _inspect,
        text="state of one checkpoint: step, ledger, layout (JSON)",
        description="Prints what a checkpoint says of itself, as JSON.",
    )
    add_command(
        commands,
        "verify",
        lambda: CheckpointOptions,
        _verify,
        text="compare every file with the manifest's size and checksum",
        description="Reads every file of a checkpoint. Exit code 1 at the first that is not as it was written.",
    )


def _list(options: RunOptions) -> int:
    from megatron_salamandra.run_directory import (
        CheckpointError,
        RunDirectory,
        complete_checkpoints,
        read_state,
        verify_checkpoint,
    )
    from salamandra_data.text_table import text_table

    if not options.run.is_dir():
        raise OptionError(
            f"{options.run}: {_what_is_there(options.run)}\n  name a run directory, such as runs/my-run"
        )
    checkpoints = RunDirectory(options.run).checkpoints
    root = checkpoints if checkpoints.is_dir() else options.run
    rows = []
    for directory in complete_checkpoints(root):
        try:
            size = verify_checkpoint(directory, checksums=False)
            state = read_state(directory)
        except CheckpointError as error:
            print(error, file=sys.stderr)
            rows.append([directory.name, "damaged", "", ""])
            continue
        rows.append([directory.name, f"{state.consumed_tokens:,}", state.layout, f"{size / 1e6:,.1f}"])
    print(text_table(["checkpoint", "tokens", "layout", "MB"], rows) if rows else f"{root}: no checkpoints")
    return 0


def _what_is_there(path: Path) -> str:
    return "is a file, not a directory" if path.exists() else "no such directory"


def _inspect(options: CheckpointOptions) -> int:
    from megatron_salamandra.run_directory import read_state, resolve_checkpoint

    print(json.dumps(dict(read_state(resolve_checkpoint(options.checkpoint)).values), indent=1))
    return 0


def _verify(options: CheckpointOptions) -> int:
    from megatron_salamandra.run_directory import resolve_checkpoint, verify_checkpoint

    directory = resolve_checkpoint(options.checkpoint)
    size = verify_checkpoint(directory)
    print(f"{directory}: complete, {size / 1e6:,.1f} MB, all checksums match")
    return 0
