"""``salamandra data inspect``: what shards hold."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._options import add_command, at_least_one, location


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "inspect",
        _run,
        text="print what shards hold, a document as text, or the documents that contain a text",
        description="Reads one shard, or all below a directory, and prints counts; with --document the text of that "
        "document; with --search the numbers of the documents that contain a text.",
    )
    parser.add_argument(
        "path", type=location, metavar="PREFIX|DIR", help="a shard without its file ending, or a directory"
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--document", type=int, metavar="N", help="print document N, counted from 0 over all shards"
    )
    chosen.add_argument(
        "--search", metavar="TEXT", help="list documents that contain TEXT: number, shard, tokens, excerpt"
    )
    parser.add_argument(
        "--max-results",
        type=at_least_one,
        default=20,
        metavar="N",
        help="stop after N documents found (default: 20)",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="MODEL",
        help="model to decode with (default: tokenizer.model beside the shard)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.shards import document_text, search_documents, shard_table

    if arguments.search is not None:
        found = search_documents(arguments.path, arguments.search, arguments.tokenizer)
        for document in islice(found, arguments.max_results):
            print(document.line(), flush=True)
    elif arguments.document is None:
        print(shard_table(arguments.path))
    else:
        print(document_text(arguments.path, arguments.document, arguments.tokenizer))
    return 0
