"""``salamandra checkpoint``: list, inspect and verify checkpoints. Never imports torch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the ``checkpoint`` group."""
    group = subparsers.add_parser("checkpoint", help="list, inspect and verify checkpoints")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = commands.add_parser("list", help="complete checkpoints of a run, oldest first")
    listing.add_argument("run", type=Path, help="run directory, or its checkpoints/")
    listing.set_defaults(handler=_list)

    inspect = commands.add_parser("inspect", help="state of one checkpoint: step, ledger, layout (JSON)")
    inspect.add_argument("checkpoint", type=Path, help="step-NNNNNNNN, or a run directory for the latest")
    inspect.set_defaults(handler=_inspect)

    verify = commands.add_parser("verify", help="compare every file with the manifest's size and checksum")
    verify.add_argument("checkpoint", type=Path, help="step-NNNNNNNN, or a run directory for the latest")
    verify.set_defaults(handler=_verify)


def _list(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.run_directory import (
        CheckpointError,
        RunDirectory,
        complete_checkpoints,
        read_state,
        verify_checkpoint,
    )
    from salamandra_data.text_table import text_table

    checkpoints = RunDirectory(arguments.run).checkpoints
    root = checkpoints if checkpoints.is_dir() else arguments.run
    rows = []
    for directory in complete_checkpoints(root):
        try:
            size = verify_checkpoint(directory, checksums=False)
            state = read_state(directory)
        except CheckpointError as error:
            print(error, file=sys.stderr)
            rows.append([directory.name, "damaged", "", ""])
            continue
        rows.append([directory.name, f"{state['consumed_tokens']:,}", state["layout"], f"{size / 1e6:,.1f}"])
    print(text_table(["checkpoint", "tokens", "layout", "MB"], rows) if rows else f"{root}: no checkpoints")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.run_directory import read_state, resolve_checkpoint

    print(json.dumps(read_state(resolve_checkpoint(arguments.checkpoint)), indent=1))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.run_directory import resolve_checkpoint, verify_checkpoint

    directory = resolve_checkpoint(arguments.checkpoint)
    size = verify_checkpoint(directory)
    print(f"{directory}: complete, {size / 1e6:,.1f} MB, all checksums match")
    return 0
