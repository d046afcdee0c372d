"""``salamandra explain``: which documents made up a step of a run. Never imports torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers

_TEXT_TOKENS = 64


def register(subparsers: Subparsers) -> None:
    """Add ``explain`` to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="list the documents that a step of a run was trained on",
        description="Computes, from config.yaml, blend.lock.yaml and, for a run that goes on from another one, "
        "ordinals.lock.yaml of a run directory, the samples of a step, and reads the shards' indexes for the "
        "documents in them. Per sample: number, language, epoch, window; per document: shard, number, tokens taken. "
        "`salamandra data inspect SHARD --document N` prints a document.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="run directory")
    parser.add_argument(
        "--step", type=int, required=True, metavar="N", help="step, counted from 1 as in metrics.jsonl"
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="K",
        help="only sample K of the step, counted from 0 in its global batch",
    )
    parser.add_argument(
        "--text",
        type=int,
        metavar="C",
        help="print the first C characters of what was taken of each document",
    )
    parser.add_argument(
        "--blend",
        type=Path,
        metavar="FILE",
        help="the run's blend plan, where the data is now if it was moved",
    )
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.data import RunRecord
    from salamandra_data.errors import DataError
    from salamandra_data.tokenization import cached_encoder

    record = RunRecord(arguments.run, arguments.blend)
    samples = record.step_samples(arguments.step)
    if arguments.sample is not None:
        if not 0 <= arguments.sample < len(samples):
            raise DataError(f"--sample {arguments.sample}: a step has samples 0 to {len(samples) - 1}")
        samples = samples[arguments.sample : arguments.sample + 1]
    for sample in samples:
        contents = record.contents(sample)
        place = contents.location
        print(
            f"sample {sample}: {place.source}, epoch {place.epoch}, window {place.window} "
            f"(ordinal {place.ordinal} of its {'language' if place.source == place.language else 'source'})"
        )
        for part in contents.documents:
            last = part.first_token + part.tokens
            print(
                f"  {part.shard.name} document {part.document}: "
                f"tokens {part.first_token} to {last} of {part.document_tokens}"
            )
            if arguments.text:
                ids = record.ids(
                    part, max(_TEXT_TOKENS, arguments.text)
                )  # a token is a character or more, mostly
                text = cached_encoder(record.plan.tokenizer.path).decode(ids)
                print(f"    {text[: arguments.text]!r}")
    return 0
