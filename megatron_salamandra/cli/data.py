"""``salamandra data``: from text to a tokenizer, indexed shards and a blend plan."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

_INTERRUPTED = 130
if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def register(subparsers: _Subparsers) -> None:
    """Add ``data`` and its commands to the command line."""
    group = subparsers.add_parser(
        "data",
        help="train a tokenizer, tokenize text to shards, blend languages, look at and verify the result",
        description="Prepares data on CPU, without torch. In this order: train-tokenizer, tokenize, blend; "
        "inspect and verify look at what they wrote.",
    )
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train_tokenizer(commands)
    _add_tokenize(commands)
    _add_blend(commands)
    _add_inspect(commands)
    _add_verify(commands)


def _command(
    commands: _Subparsers,
    name: str,
    handler: Callable[[argparse.Namespace], int],
    *,
    text: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=description)
    parser.set_defaults(handler=handler)
    return parser


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="files, directories or patterns: JSON lines (.jsonl, .ndjson, .json), plain text (.txt, one document "
        "per file), each also .gz or .zst, and .parquet",
    )
    parser.add_argument("--text-key", default="text", metavar="KEY", help="key of the text (default: text)")
    parser.add_argument("--language", metavar="XX", help="language of every document; wins over the key")
    parser.add_argument(
        "--language-key",
        default="language",
        metavar="KEY",
        help="key of a document's language (default: language)",
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="a malformed line ends the command (default), or is counted and passed over",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides every random choice (default: 0)"
    )


def _add_train_tokenizer(commands: _Subparsers) -> None:
    parser = _command(
        commands,
        "train-tokenizer",
        _train_tokenizer,
        text="train a SentencePiece BPE tokenizer on a chosen mix of languages",
        description="Reads documents, samples lines by language and trains with the Salamandra recipe (byte fallback, "
        "split digits, NFC, whitespace runs, 100 control symbols; ids 0 to 390 are fixed). Writes tokenizer.model, "
        "tokenizer.vocab and training.json into --out.",
    )
    _add_input_options(parser)
    parser.add_argument(
        "--vocab-size", type=int, required=True, metavar="N", help="number of ids, the fixed 391 included"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory for the tokenizer")
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.0,
        metavar="A",
        help="0: as many bytes of each language (default); 1: each language's natural share",
    )
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


def _add_tokenize(commands: _Subparsers) -> None:
    parser = _command(
        commands,
        "tokenize",
        _tokenize,
        text="turn documents into globally shuffled shards with manifests",
        description="Reads documents, shuffles them within each language and writes shards LANGUAGE-SPLIT-NNNNN "
        "(.bin and .idx as Megatron reads them, .json with counts and checksums) and a copy of the tokenizer into "
        "--out. The same input and seed give the same bytes, whatever the number of workers. Run again after an "
        "interruption, it keeps the shards that are done.",
    )
    _add_input_options(parser)
    parser.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="MODEL|DIR",
        help="SentencePiece model file, or a directory that holds tokenizer.model",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory for the shards")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
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
        type=Path,
        metavar="DIR",
        help="directory for an intermediate copy of the text (default: in --out)",
    )


def _add_blend(commands: _Subparsers) -> None:
    parser = _command(
        commands,
        "blend",
        _blend,
        text="weigh the languages of shards by factors and write a blend plan",
        description="Reads shard manifests and a file of language factors, prints what each language gets, and writes "
        "the plan that training reads.",
    )
    parser.add_argument(
        "--shards",
        nargs="+",
        required=True,
        metavar="DIR",
        help="directories of shards, or prefixes of single shards",
    )
    parser.add_argument(
        "--factors",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML: language to factor (how often it is walked per pass; 0 leaves it out), also below `languages:` "
        "or `factors:`; `default:` is for the others (1 if absent)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the plan, a YAML file")
    parser.add_argument(
        "--budget-tokens", type=_at_least_one, metavar="N", help="length of the run (default: one pass)"
    )
    parser.add_argument(
        "--max-epochs",
        type=float,
        default=4.0,
        metavar="X",
        help="warn about languages walked more often (default: 4)",
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="MODEL", help="the shards' tokenizer, if it is not beside them"
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _add_inspect(commands: _Subparsers) -> None:
    parser = _command(
        commands,
        "inspect",
        _inspect,
        text="print what shards hold, or one document as text",
        description="Reads one shard, or all below a directory, and prints counts; with --document the text of that "
        "document.",
    )
    parser.add_argument(
        "path", type=Path, metavar="PREFIX|DIR", help="a shard without its file ending, or a directory"
    )
    parser.add_argument(
        "--document", type=int, metavar="N", help="print document N, counted from 0 over all shards"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="MODEL",
        help="model to decode with (default: tokenizer.model beside the shard)",
    )


def _add_verify(commands: _Subparsers) -> None:
    parser = _command(
        commands,
        "verify",
        _verify,
        text="check shards and blend plans down to the last byte",
        description="Checks structure, checksums, ids, document ends, counts and tokenizer of every shard named or "
        "found, and every shard of a blend plan. Exit code 0 if all is well, else 1 with each problem named.",
    )
    parser.add_argument(
        "path", nargs="+", type=Path, metavar="PATH", help="shards, directories or blend plans (.yaml)"
    )


def _train_tokenizer(arguments: argparse.Namespace) -> int:
    from salamandra_data.readers import DocumentKeys
    from salamandra_data.tokenizer import TokenizerTraining, train_tokenizer

    job = TokenizerTraining(
        inputs=arguments.input,
        vocab_size=arguments.vocab_size,
        keys=DocumentKeys(arguments.text_key, arguments.language, arguments.language_key),
        alpha=arguments.alpha,
        budget_bytes=arguments.bytes_budget,
        max_repeats=arguments.max_repeats,
        seed=arguments.seed,
        skip_malformed=arguments.on_error == "skip",
    )
    trained = train_tokenizer(job, arguments.out)
    print(trained.table())
    if trained.malformed_lines:
        print(f"malformed lines passed over: {trained.malformed_lines:,}")
    print(f"{trained.model}: {trained.vocab_size:,} ids")
    return 0


def _tokenize(arguments: argparse.Namespace) -> int:
    from salamandra_data.readers import DocumentKeys
    from salamandra_data.tokenization import TokenizeJob, tokenize

    job = TokenizeJob(
        inputs=arguments.input,
        tokenizer=arguments.tokenizer,
        out=arguments.out,
        keys=DocumentKeys(arguments.text_key, arguments.language, arguments.language_key),
        workers=arguments.workers,
        validation_fraction=arguments.validation_fraction,
        seed=arguments.seed,
        shard_tokens=arguments.shard_tokens,
        skip_malformed=arguments.on_error == "skip",
        scratch=arguments.scratch,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = tokenize(job)
    except KeyboardInterrupt:
        print("\ninterrupted: finished shards stay; run the same command again to continue", file=sys.stderr)
        return _INTERRUPTED
    print(result.table())
    if result.shards_already_done:
        print(f"shards kept from an earlier run: {result.shards_already_done:,}")
    for language, count in sorted(result.empty_documents.items()):
        print(f"empty documents passed over: {count:,} in {language}")
    if result.skipped_report is not None:
        print(f"malformed lines passed over: {result.malformed_lines:,}, listed in {result.skipped_report}")
    return 0


def _blend(arguments: argparse.Namespace) -> int:
    from salamandra_data.blend_plan import LanguageFactors, build_plan
    from salamandra_data.blend_plan.report import blend_table, blend_warnings

    factors = LanguageFactors.load(arguments.factors)
    plan = build_plan(arguments.shards, factors, tokenizer=arguments.tokenizer)
    print(blend_table(plan, arguments.budget_tokens))
    for warning in blend_warnings(
        plan, factors, budget_tokens=arguments.budget_tokens, max_epochs=arguments.max_epochs
    ):
        print(f"warning: {warning}", file=sys.stderr)
    plan.save(arguments.out)
    print(f"{arguments.out}: {len(plan.sources)} sources, fingerprint {plan.fingerprint()[:16]}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from salamandra_data.inspection import document_text, shard_table

    if arguments.document is None:
        print(shard_table(arguments.path))
    else:
        print(document_text(arguments.path, arguments.document, arguments.tokenizer))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from salamandra_data.verification import verify

    report = verify(arguments.path)
    for line in report.lines():
        print(line)
    return 1 if report.problems else 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
