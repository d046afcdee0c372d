"""``salamandra data split``: one shard into several."""

from __future__ import annotations

from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, OneOf, Option, Options
from salamandra_data.option_groups import Place, ReshardOptions

_SIZE = OneOf(required=True)


class SplitOptions(Options):
    """The options of ``salamandra data split``."""

    path: Annotated[
        Place, Option("the shard, with or without a file ending", metavar="SHARD", positional=True)
    ]
    target: ReshardOptions
    shards: Annotated[Count | None, Option("number of new shards", one_of=_SIZE)] = None
    shard_tokens: Annotated[Count | None, Option("at most this many tokens per new shard", one_of=_SIZE)] = (
        None
    )


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "split",
        lambda: SplitOptions,
        _run,
        text="cut a shard into several, between documents",
        description="Copies the documents of one shard into --shards shards of about the same number of tokens, or "
        "into shards of --shard-tokens tokens. Writes shards LANGUAGE-SPLIT-NNNNN with manifests, and the tokenizer, "
        "into --out; nothing appears before all is done. Merging them again gives the same bytes.",
    )


def _run(options: SplitOptions) -> int:
    from salamandra_data.shards import Cut, IntoParts, IntoTokens, manifest_table, one_shard, reshard

    if options.shards is not None:
        cut: Cut = IntoParts(options.shards)
    else:
        assert options.shard_tokens is not None  # the options have one of the two
        cut = IntoTokens(options.shard_tokens)
    print(
        manifest_table(
            reshard([one_shard(options.path)], options.target.out, cut, tokenizer=options.target.tokenizer)
        )
    )
    return 0
