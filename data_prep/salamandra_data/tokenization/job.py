"""What a tokenization job is asked to do: the options of ``salamandra data tokenize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from megatron_salamandra.foundation.options import Count, Option, Options
from salamandra_data.option_groups import InputOptions, OutputPath, StagedExecutorOptions

DEFAULT_GUARD_SHARE = 0.005


class TokenizeJob(Options):
    """What decides the shards, and where they and the intermediate work go."""

    documents: InputOptions
    tokenizer: Annotated[
        Path,
        Option(
            "SentencePiece model file, or a directory that holds tokenizer.model",
            metavar="MODEL|DIR",
            decides_output=False,  # its contents do
        ),
    ]
    out: Annotated[
        OutputPath,
        Option(
            "directory for the shards; a copy of the tokenizer goes there too",
            metavar="DIR",
            decides_output=False,
        ),
    ]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), Option("order of the documents")] = 0
    encoder: Annotated[
        Literal["auto", "sentencepiece", "gigatoken", "kitoken"],
        Option("auto: the fastest that is installed and gives SentencePiece's ids"),
    ] = "auto"
    guard_share: Annotated[
        float,
        Field(ge=0, le=1),
        Option(
            "share of documents that SentencePiece encodes as well, to compare, besides the first 8 documents of each "
            "shard; the first difference ends the run",
            metavar="F",
        ),
    ] = DEFAULT_GUARD_SHARE
    validation_fraction: Annotated[
        float,
        Field(ge=0, lt=1),
        Option("share of documents for validation shards, chosen by a hash of the text", metavar="F"),
    ] = 0.0
    shard_tokens: Annotated[
        Count,
        Option(
            "tokens per shard, about; shards are cut by size of text before it is encoded",
            default_text="2**28",
        ),
    ] = 1 << 28
    scratch: Annotated[
        OutputPath | None,
        Option(
            "directory for an intermediate copy of the text (default: in --out)",
            metavar="DIR",
            decides_output=False,
        ),
    ] = None


class TokenizeOptions(Options):
    """A job, and the machines that do it."""

    job: TokenizeJob
    machines: StagedExecutorOptions
