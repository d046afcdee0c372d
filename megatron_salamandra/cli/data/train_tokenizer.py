"""``salamandra data train-tokenizer``: a SentencePiece tokenizer on a chosen mix of languages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.exit_codes import EXIT_DONE
from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.option_groups import InputOptions, NaturalShareOptions, OutputPath

_Number = Annotated[int, Field(ge=1, lt=2**63)]


class TrainTokenizerOptions(Options):
    """What ``salamandra data train-tokenizer`` trains on, and how."""

    documents: InputOptions
    vocab_size: Annotated[
        int, Field(ge=1, lt=2**31), Option("number of ids, the fixed 391 included", metavar="N")
    ]
    out: Annotated[OutputPath, Option("directory for the tokenizer", metavar="DIR", decides_output=False)]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), Option("decides which lines are taken")] = 0
    alpha: Annotated[
        float,
        Field(ge=0, le=1),
        Option("0: as many bytes of each language; 1: each language's natural share", metavar="A"),
    ] = 0.0
    shares: NaturalShareOptions
    bytes_budget: Annotated[
        _Number | None,
        Option(
            "text to train on (default: as much as there is, at most 1 GiB; memory is about six times this)"
        ),
    ] = None
    max_repeats: Annotated[
        float,
        Field(ge=1),
        Option(
            "how often the text of a small language may be repeated to fill its part; 1: never", metavar="X"
        ),
    ] = 8.0


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "train-tokenizer",
        lambda: TrainTokenizerOptions,
        _run,
        text="train a SentencePiece BPE tokenizer on a chosen mix of languages",
        description="Reads documents, samples lines by language and trains with the Salamandra recipe (byte fallback, "
        "split digits, NFC, whitespace runs, 100 control symbols; ids 0 to 390 are fixed). Writes tokenizer.model, "
        "tokenizer.vocab and training.json into --out.",
    )


def _run(options: TrainTokenizerOptions) -> int:
    from salamandra_data.tokenizer import TokenizerTraining, natural_sizes, train_tokenizer

    documents = options.documents
    sizes = natural_sizes(options.shares.language_sizes, options.shares.factors)
    job = TokenizerTraining(
        inputs=documents.input,
        vocab_size=options.vocab_size,
        keys=documents.keys,
        alpha=options.alpha,
        budget_bytes=options.bytes_budget,
        max_repeats=options.max_repeats,
        seed=options.seed,
        skip_malformed=documents.skip_malformed,
        language_sizes=sizes.tokens if sizes else None,
    )
    trained = train_tokenizer(job, options.out)
    print(trained.table())
    if trained.malformed_lines:
        print(f"malformed lines passed over: {trained.malformed_lines:,}")
    for language, count in trained.refused_lines.items():
        print(f"lines passed over that SentencePiece does not learn from: {count:,} in {language}")
    print(f"{trained.model}: {trained.vocab_size:,} ids")
    return EXIT_DONE
