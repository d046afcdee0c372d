"""``salamandra data curate``: raw documents to those worth training on."""

from __future__ import annotations

import argparse
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._executors import add_executor_options, executor_settings
from megatron_salamandra.cli.data._long_work import tell_submission, until_interrupted
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
        "curate",
        _run,
        text="filter, score and deduplicate documents, and show what was removed",
        description="Reads documents, removes those in another language, of low quality, contaminated or repeated, "
        "masks personal data, and writes the others to --out/documents, one .jsonl.zst per input file. Every removal "
        "is counted by reason and language (curation.json, curation.html) and a sample is kept (removed/). Each input "
        "file is a task: cut large inputs into files. Run again after an interruption, it goes on.",
    )
    add_input_options(parser)
    parser.add_argument(
        "--out", type=place_to_write, required=True, metavar="DIR", help="directory for all that is written"
    )
    language = parser.add_mutually_exclusive_group()
    language.add_argument(
        "--identify-language",
        action="store_true",
        help="find each document's language, which it need not declare, instead of checking it",
    )
    language.add_argument(
        "--no-check-language",
        action="store_true",
        help="keep documents that are not in their declared language",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.8,
        metavar="S",
        help="least quality score, in [0, 1] (default: 0.8)",
    )
    parser.add_argument("--no-score", action="store_true", help="neither score nor remove by score")
    parser.add_argument(
        "--harm-score",
        metavar="MODULE:FUNCTION",
        help="a function (text, language) -> [0, 1] of your own that says how harmful a document is; its module may "
        "be in the current directory",
    )
    parser.add_argument(
        "--max-harm",
        type=float,
        metavar="S",
        help="most harmful that is kept, for --harm-score (default: 0.5)",
    )
    parser.add_argument(
        "--keep-personal-data",
        action="store_true",
        help="do not mask e-mail and IP addresses, phone numbers, IBANs and national ids",
    )
    parser.add_argument("--keep-exact", action="store_true", help="keep documents of equal text")
    parser.add_argument(
        "--keep-near", action="store_true", help="keep documents of nearly equal text (MinHash)"
    )
    parser.add_argument("--keep-paragraphs", action="store_true", help="keep paragraphs that occurred before")
    parser.add_argument(
        "--across-sources", action="store_true", help="look for duplicates over all sources, not within each"
    )
    parser.add_argument(
        "--decontaminate",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="benchmark tasks (.jsonl, .json, .txt, each also .gz or .zst; .parquet, .arrow: all strings of an item); "
        "documents that share --ngram words in a row with an item go",
    )
    parser.add_argument("--ngram", type=int, default=13, metavar="N", help="words in a row (default: 13)")
    parser.add_argument(
        "--min-words",
        type=int,
        default=5,
        metavar="N",
        help="a document left with fewer when repeated paragraphs are gone is removed (default: 5)",
    )
    parser.add_argument(
        "--samples", type=int, default=20, metavar="N", help="removed documents kept per reason (default: 20)"
    )
    add_executor_options(parser, cut_into_tasks=False)


def _run(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.config import ConfigError
    from salamandra_data.curation import CurationSettings, HarmScore, curate

    if arguments.max_harm is not None and arguments.harm_score is None:
        raise ConfigError("--max-harm needs --harm-score")
    most = 0.5 if arguments.max_harm is None else arguments.max_harm
    settings = CurationSettings(
        inputs=arguments.input,
        out=arguments.out,
        keys=document_keys(arguments),
        skip_malformed=arguments.on_error == "skip",
        identify_language=arguments.identify_language,
        check_language=not arguments.no_check_language,
        min_score=None if arguments.no_score else arguments.min_score,
        harm=HarmScore(arguments.harm_score, most, Path.cwd()) if arguments.harm_score else None,
        mask_personal_data=not arguments.keep_personal_data,
        exact=not arguments.keep_exact,
        near=not arguments.keep_near,
        paragraphs=not arguments.keep_paragraphs,
        across_sources=arguments.across_sources,
        decontaminate=arguments.decontaminate,
        ngram=arguments.ngram,
        min_words=arguments.min_words,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    executor = executor_settings(arguments)

    def work() -> int:
        outcome, result = curate(settings, executor)
        tell_submission(outcome)
        if result is not None:
            print(result.table())
            if tasks := result.tasks_table():
                print(f"\n{tasks}\n")
            print(f"what went and why: {result.page}")
        return 0

    return until_interrupted(work, "finished tasks")
