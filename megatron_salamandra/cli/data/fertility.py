"""``salamandra data fertility``: compare tokenizers by language."""

from __future__ import annotations

import argparse
import sys

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._options import (
    add_command,
    add_input_options,
    at_least_one,
    document_keys,
    place_to_write,
)


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "fertility",
        _run,
        text="compare tokenizers by the tokens they need for each language",
        description="Reads text and tokenizers, and prints tokens per word (by the definition used for Salamandra). "
        "With --out also writes tokens per byte, byte fallback and parity with one language as CSV and JSON, with "
        "plots and a page.",
    )
    add_input_options(parser, seed=False)
    parser.add_argument(
        "--tokenizers",
        nargs="+",
        required=True,
        metavar="[NAME=]PATH",
        help="SentencePiece .model files, Hugging Face tokenizer.json files, or directories with one; a path that "
        "exists is not split at its =",
    )
    parser.add_argument(
        "--max-bytes",
        type=at_least_one,
        default=2_000_000,
        metavar="N",
        help="text of each language that is read at most (default: 2 MB)",
    )
    parser.add_argument(
        "--reference",
        metavar="XX",
        help="language that parity compares to (default: en, if there is text of it)",
    )
    parser.add_argument(
        "--parallel",
        action="store_true",
        help="the languages hold translations of the same text: parity compares tokens, not tokens per word",
    )
    parser.add_argument(
        "--out", type=place_to_write, metavar="DIR", help="directory for CSV, JSON, plots and the page"
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.figures import check_matplotlib
    from salamandra_data.tokenizer_study import (
        StudyDocuments,
        fertility_table,
        measure_fertility,
        named_path,
        open_tokenizer,
        read_language_text,
    )

    if arguments.out:
        check_matplotlib()
    tokenizers = [open_tokenizer(path, name) for name, path in map(named_path, arguments.tokenizers)]
    documents = StudyDocuments(
        arguments.input, document_keys(arguments), arguments.on_error == "skip", arguments.out
    )
    texts = read_language_text(documents, max_bytes=arguments.max_bytes)
    results = measure_fertility(
        tokenizers,
        texts,
        reference=arguments.reference,
        parallel=arguments.parallel,
        report=lambda line: print(line, file=sys.stderr),
    )
    print(fertility_table(results))
    if documents.malformed_lines:
        print(f"malformed lines passed over: {documents.malformed_lines:,}")
    if arguments.out:
        from salamandra_data.tokenizer_study import DEFAULT_REFERENCE, write_study

        compared = "tokens" if arguments.parallel else "tokens per word"
        reference = arguments.reference or DEFAULT_REFERENCE
        conditions = {
            "tokenizers": {tokenizer.name: f"{tokenizer.vocab_size} ids" for tokenizer in tokenizers},
            "max_bytes_per_language": arguments.max_bytes,
            "malformed_lines_passed_over": documents.malformed_lines,
            "parity": f"{compared} over those of {reference}"
            if reference in texts
            else f"none: no text of {reference}",
        }
        for path in write_study(arguments.out, results, conditions):
            print(path)
    return 0
