"""``salamandra data train-tokenizer``: a SentencePiece tokenizer on a chosen mix of languages."""

from __future__ import annotations

import argparse

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._natural_shares import add_natural_share_options
from megatron_salamandra.cli.data._options import (
    add_command,
    add_input_options,
    document_keys,
    place_to_write,
)


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "train-tokenizer",
        _run,
        text="train a SentencePiece BPE tokenizer on a chosen mix of languages",
        description="Reads documents, samples lines by language and trains with the Salamandra recipe (byte fallback, "
        "split digits, NFC, whitespace runs, 100 control symbols; ids 0 to 390 are fixed). Writes tokenizer.model, "
        "tokenizer.vocab and training.json into --out.",
    )
    add_input_options(parser)
    parser.add_argument(
        "--vocab-size", type=int, required=True, metavar="N", help="number of ids, the fixed 391 included"
    )
    parser.add_argument(
        "--out", type=place_to_write, required=True, metavar="DIR", help="directory for the tokenizer"
    )
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.0,
        metavar="A",
        help="0: as many bytes of each language (default); 1: each language's natural share",
    )
    add_natural_share_options(parser)
    parser.add_argument(
        "--bytes-budget",
        type=int,
        metavar="N",
        help="text to train on (default: as much as there is, at most 1 GiB; memory is about six times this)",
    )
    parser.add_argument(
        "--max-repeats",
        type=float,
        default=8.0,
        metavar="X",
        help="how often the text of a small language may be repeated to fill its part (default: 8; 1: never)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.readers import refuse_overlap
    from salamandra_data.tokenizer import TokenizerTraining, natural_sizes, train_tokenizer

    refuse_overlap(arguments.input, (), arguments.out)
    sizes = natural_sizes(arguments.language_sizes, arguments.factors)
    job = TokenizerTraining(
        inputs=arguments.input,
        vocab_size=arguments.vocab_size,
        keys=document_keys(arguments),
        alpha=arguments.alpha,
        budget_bytes=arguments.bytes_budget,
        max_repeats=arguments.max_repeats,
        seed=arguments.seed,
        skip_malformed=arguments.on_error == "skip",
        language_sizes=sizes.tokens if sizes else None,
    )
    trained = train_tokenizer(job, arguments.out)
    print(trained.table())
    if trained.malformed_lines:
        print(f"malformed lines passed over: {trained.malformed_lines:,}")
    for language, count in trained.refused_lines.items():
        print(f"lines passed over that SentencePiece does not learn from: {count:,} in {language}")
    print(f"{trained.model}: {trained.vocab_size:,} ids")
    return 0
