"""``salamandra data merge``: several shards into one, or cut anew."""

from __future__ import annotations

import argparse

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._options import (
    add_command,
    add_reshard_options,
    at_least_one,
    location,
)


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "merge",
        _run,
        text="put shards of one language together, into one or into shards of another size",
        description="Copies the documents of shards of one language, split and tokenizer, in the order given, into "
        "one shard, or into shards of --shard-tokens tokens. Checks their checksums on the way. Writes shards "
        "LANGUAGE-SPLIT-NNNNN with manifests, and the tokenizer, into --out; nothing appears before all is done.",
    )
    parser.add_argument(
        "path",
        nargs="+",
        type=location,
        metavar="SHARD|DIR",
        help="shards, or directories of shards of one language",
    )
    add_reshard_options(parser)
    parser.add_argument(
        "--shard-tokens",
        type=at_least_one,
        metavar="N",
        help="at most this many tokens per new shard, cut between documents (default: one shard)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.shards import IntoTokens, Whole, find_shards, manifest_table, reshard

    cut = Whole() if arguments.shard_tokens is None else IntoTokens(arguments.shard_tokens)
    print(
        manifest_table(
            reshard(find_shards(arguments.path), arguments.out, cut, tokenizer=arguments.tokenizer)
        )
    )
    return 0
