"""``salamandra data tokenize``: documents to shuffled, indexed shards."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from megatron_salamandra.cli.data._options import (
    INTERRUPTED,
    Subparsers,
    add_command,
    add_input_options,
    document_keys,
    interrupt,
)


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


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.tokenization import TokenizeJob, tokenize

    job = TokenizeJob(
        inputs=arguments.input,
        tokenizer=arguments.tokenizer,
        out=arguments.out,
        keys=document_keys(arguments),
        workers=arguments.workers,
        validation_fraction=arguments.validation_fraction,
        seed=arguments.seed,
        shard_tokens=arguments.shard_tokens,
        skip_malformed=arguments.on_error == "skip",
        scratch=arguments.scratch,
    )
    signal.signal(signal.SIGTERM, interrupt)
    try:
        result = tokenize(job)
    except KeyboardInterrupt:
        print("\ninterrupted: finished shards stay; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    print(result.table())
    if result.shards_already_done:
        print(f"shards kept from an earlier run: {result.shards_already_done:,}")
    for language, count in sorted(result.empty_documents.items()):
        print(f"empty documents passed over: {count:,} in {language}")
    if result.skipped_report is not None:
        print(f"malformed lines passed over: {result.malformed_lines:,}, listed in {result.skipped_report}")
    return 0
