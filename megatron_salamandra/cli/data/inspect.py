"""``salamandra data inspect``: what shards hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from megatron_salamandra.cli.data._options import Subparsers, add_command


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "inspect",
        _run,
        text="print what shards hold, or one document as text",
        description="Reads one shard, or all below a directory, and prints counts; with --document the text of that "
        "document.",
    )
    parser.add_argument(
        "path", type=Path, metavar="PREFIX|DIR", help="a shard without its file ending, or a directory"
    )
    parser.add_argument(
        "--document", type=int, metavar="N", help="print document N, counted from 0 over all shards"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="MODEL",
        help="model to decode with (default: tokenizer.model beside the shard)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.inspection import document_text, shard_table

    if arguments.document is None:
        print(shard_table(arguments.path))
    else:
        print(document_text(arguments.path, arguments.document, arguments.tokenizer))
    return 0
