"""``salamandra data split``: one shard into several."""

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
        "split",
        _run,
        text="cut a shard into several, between documents",
        description="Copies the documents of one shard into --shards shards of about the same number of tokens, or "
        "into shards of --shard-tokens tokens. Writes shards LANGUAGE-SPLIT-NNNNN with manifests, and the tokenizer, "
        "into --out; nothing appears before all is done. Merging them again gives the same bytes.",
    )
    parser.add_argument(
        "path", type=location, metavar="SHARD", help="the shard, with or without a file ending"
    )
    add_reshard_options(parser)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--shards", type=at_least_one, metavar="N", help="number of new shards")
    size.add_argument(
        "--shard-tokens", type=at_least_one, metavar="N", help="at most this many tokens per new shard"
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.shards import IntoParts, IntoTokens, manifest_table, one_shard, reshard

    cut = IntoTokens(arguments.shard_tokens) if arguments.shards is None else IntoParts(arguments.shards)
    print(
        manifest_table(
            reshard([one_shard(arguments.path)], arguments.out, cut, tokenizer=arguments.tokenizer)
        )
    )
    return 0
