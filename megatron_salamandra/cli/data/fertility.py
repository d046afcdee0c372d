"""``salamandra data fertility``: compare tokenizers by language."""

from __future__ import annotations

import sys
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, Option, Options
from salamandra_data.option_groups import InputOptions, NamedPath, OutputPath


class FertilityOptions(Options):
    """The options of ``salamandra data fertility``."""

    documents: InputOptions
    tokenizers: Annotated[
        tuple[NamedPath, ...],
        Option(
            "SentencePiece .model files, Hugging Face tokenizer.json files, or directories with one; a path that "
            "exists is not split at its =",
            metavar="[NAME=]PATH",
        ),
    ]
    max_bytes: Annotated[Count, Option("text of each language that is read at most", default_text="2 MB")] = (
        2_000_000
    )
    reference: Annotated[
        str | None,
        Option("language that parity compares to (default: en, if there is text of it)", metavar="XX"),
    ] = None
    parallel: Annotated[
        bool,
        Option(
            "the languages hold translations of the same text: parity compares tokens, not tokens per word"
        ),
    ] = False
    out: Annotated[
        OutputPath | None,
        Option("directory for CSV, JSON, plots and the page", metavar="DIR", decides_output=False),
    ] = None


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "fertility",
        lambda: FertilityOptions,
        _run,
        text="compare tokenizers by the tokens they need for each language",
        description="Reads text and tokenizers, and prints tokens per word (by the definition used for Salamandra). "
        "With --out also writes tokens per byte, byte fallback and parity with one language as CSV and JSON, with "
        "plots and a page.",
    )


def _run(options: FertilityOptions) -> int:
    from salamandra_data.figures import check_matplotlib
    from salamandra_data.tokenizer_study import (
        StudyDocuments,
        fertility_table,
        measure_fertility,
        named_path,
        open_tokenizer,
        read_language_text,
    )

    if options.out:
        check_matplotlib()
    tokenizers = [open_tokenizer(path, name) for name, path in map(named_path, options.tokenizers)]
    given = options.documents
    documents = StudyDocuments(list(given.input), given.keys, given.skip_malformed, options.out)
    texts = read_language_text(documents, max_bytes=options.max_bytes)
    results = measure_fertility(
        tokenizers,
        texts,
        reference=options.reference,
        parallel=options.parallel,
        report=lambda line: print(line, file=sys.stderr),
    )
    print(fertility_table(results))
    if documents.malformed_lines:
        print(f"malformed lines passed over: {documents.malformed_lines:,}")
    if options.out:
        from salamandra_data.tokenizer_study import DEFAULT_REFERENCE, write_study

        compared = "tokens" if options.parallel else "tokens per word"
        reference = options.reference or DEFAULT_REFERENCE
        conditions = {
            "tokenizers": {tokenizer.name: f"{tokenizer.vocab_size} ids" for tokenizer in tokenizers},
            "max_bytes_per_language": options.max_bytes,
            "malformed_lines_passed_over": documents.malformed_lines,
            "parity": f"{compared} over those of {reference}"
            if reference in texts
            else f"none: no text of {reference}",
        }
        for path in write_study(options.out, results, conditions):
            print(path)
    return 0
