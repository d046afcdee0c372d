"""``salamandra data tokenize``: documents to shuffled, indexed shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._executors import (
    add_executor_options,
    executor_settings,
    executor_tasks,
)
from megatron_salamandra.cli.data._long_work import tell_submission, until_interrupted
from megatron_salamandra.cli.data._options import (
    add_command,
    add_input_options,
    document_keys,
    place_to_write,
)

if TYPE_CHECKING:
    from salamandra_data.tokenization import TokenizeResult


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "tokenize",
        _run,
        text="turn documents into globally shuffled shards with manifests",
        description="Reads documents, shuffles them within each language and writes shards LANGUAGE-SPLIT-NNNNN "
        "(.bin and .idx as Megatron reads them, .json with counts and checksums) and a copy of the tokenizer into "
        "--out. The same input and seed give the same bytes, whatever the number of workers. Run again after an "
        "interruption, it keeps the shards that are done.",
    )
    add_input_options(parser)
    parser.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="MODEL|DIR",
        help="SentencePiece model file, or a directory that holds tokenizer.model",
    )
    parser.add_argument(
        "--out", type=place_to_write, required=True, metavar="DIR", help="directory for the shards"
    )
    parser.add_argument(
        "--encoder",
        default="auto",
        metavar="NAME",
        help="auto (default: the fastest that is installed and gives SentencePiece's ids), sentencepiece, gigatoken or "
        "kitoken",
    )
    parser.add_argument(
        "--guard-share",
        type=float,
        metavar="F",
        help="share of documents that SentencePiece encodes as well, to compare; the first difference ends the run "
        "(default: 0.005, and the first 8 documents of each shard)",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="share of documents for validation shards, chosen by a hash of the text (default: 0)",
    )
    parser.add_argument(
        "--shard-tokens",
        type=int,
        default=1 << 28,
        metavar="N",
        help="tokens per shard, about (default: 2**28)",
    )
    parser.add_argument(
        "--scratch",
        type=place_to_write,
        metavar="DIR",
        help="directory for an intermediate copy of the text (default: in --out)",
    )
    add_executor_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.execution import Tasks
    from salamandra_data.readers import refuse_overlap
    from salamandra_data.tokenization import (
        DEFAULT_GUARD_SHARE,
        TokenizeJob,
        tokenize_documents,
        tokenize_with,
    )

    refuse_overlap(arguments.input, (), arguments.out)
    settings = executor_settings(arguments)
    job = TokenizeJob(
        inputs=arguments.input,
        tokenizer=arguments.tokenizer,
        out=arguments.out,
        keys=document_keys(arguments),
        workers=arguments.workers or 1,
        validation_fraction=arguments.validation_fraction,
        seed=arguments.seed,
        shard_tokens=arguments.shard_tokens,
        skip_malformed=arguments.on_error == "skip",
        encoder=arguments.encoder,
        guard_share=DEFAULT_GUARD_SHARE if arguments.guard_share is None else arguments.guard_share,
        scratch=arguments.scratch,
    )

    def work() -> int:
        if arguments.executor == "local":
            return _report(tokenize_documents(job))
        outcome, result = tokenize_with(job, Tasks(settings, executor_tasks(arguments)))
        tell_submission(outcome)
        return 0 if result is None else _report(result)

    return until_interrupted(work, "finished shards")


def _report(result: TokenizeResult) -> int:
    print(result.table())
    encoder = result.encoder
    print(f"encoder: {encoder.name} {encoder.version}")
    if result.documents_checked:
        print(f"documents compared with SentencePiece: {result.documents_checked:,}, no difference")
    for reason in encoder.passed_over:
        print(f"a faster encoder was passed over: {reason}")
    if result.shards_already_done:
        print(f"shards kept from an earlier run: {result.shards_already_done:,}")
    if result.renamed:
        names = ", ".join(f"{name} is {language}" for name, language in result.renamed.items())
        print(f"names of languages that mean one of the corpus: {names}")
    for language, count in sorted(result.empty_documents.items()):
        print(f"empty documents passed over: {count:,} in {language}")
    if result.skipped_report is not None:
        print(f"malformed lines passed over: {result.malformed_lines:,}, listed in {result.skipped_report}")
    return 0
