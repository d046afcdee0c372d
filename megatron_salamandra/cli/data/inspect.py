"""``salamandra data inspect``: what shards hold."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, OneOf, Option, Options
from salamandra_data.option_groups import Place

_SHOWN = OneOf()


class InspectOptions(Options):
    """The options of ``salamandra data inspect``."""

    path: Annotated[
        Place,
        Option("a shard without its file ending, or a directory", metavar="PREFIX|DIR", positional=True),
    ]
    document: Annotated[
        int | None, Option("print document N, counted from 0 over all shards", one_of=_SHOWN)
    ] = None
    search: Annotated[
        str | None,
        Option("list documents that contain TEXT: number, shard, tokens, excerpt", one_of=_SHOWN),
    ] = None
    max_results: Annotated[Count, Option("stop after N documents found")] = 20
    tokenizer: Annotated[
        Path | None,
        Option("model to decode with (default: tokenizer.model beside the shard)", metavar="MODEL"),
    ] = None


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "inspect",
        lambda: InspectOptions,
        _run,
        text="print what shards hold, a document as text, or the documents that contain a text",
        description="Reads one shard, or all below a directory, and prints counts; with --document the text of that "
        "document; with --search the numbers of the documents that contain a text.",
    )


def _run(options: InspectOptions) -> int:
    from salamandra_data.shards import document_text, search_documents, shard_table

    if options.search is not None:
        found = search_documents(options.path, options.search, options.tokenizer)
        for document in islice(found, options.max_results):
            print(document.line(), flush=True)
    elif options.document is None:
        print(shard_table(options.path))
    else:
        print(document_text(options.path, options.document, options.tokenizer))
    return 0
