"""``salamandra data merge``: several shards into one, or cut anew."""

from __future__ import annotations

from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, Option, Options
from salamandra_data.option_groups import Place, ReshardOptions


class MergeOptions(Options):
    """The options of ``salamandra data merge``."""

    path: Annotated[
        tuple[Place, ...],
        Option("shards, or directories of shards of one language", metavar="SHARD|DIR", positional=True),
    ]
    target: ReshardOptions
    shard_tokens: Annotated[
        Count | None,
        Option("at most this many tokens per new shard, cut between documents (default: one shard)"),
    ] = None


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "merge",
        lambda: MergeOptions,
        _run,
        text="put shards of one language together, into one or into shards of another size",
        description="Copies the documents of shards of one language, split and tokenizer, in the order given, into "
        "one shard, or into shards of --shard-tokens tokens. Checks their checksums on the way. Writes shards "
        "LANGUAGE-SPLIT-NNNNN with manifests, and the tokenizer, into --out; nothing appears before all is done.",
    )


def _run(options: MergeOptions) -> int:
    from salamandra_data.shards import IntoTokens, Whole, find_shards, manifest_table, reshard

    cut = Whole() if options.shard_tokens is None else IntoTokens(options.shard_tokens)
    print(
        manifest_table(
            reshard(
                find_shards(list(options.path)), options.target.out, cut, tokenizer=options.target.tokenizer
            )
        )
    )
    return 0
