"""``salamandra explain``: which documents made up a step of a run. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options

_TEXT_TOKENS = 64


class ExplainOptions(Options):
    """Options of ``salamandra explain``."""

    run: Annotated[Path, Option("run directory", metavar="RUN_DIR", positional=True)]
    step: Annotated[int, Option("step, counted from 1 as in metrics.jsonl")]
    sample: Annotated[
        int | None, Option("only sample K of the step, counted from 0 in its global batch", metavar="K")
    ] = None
    text: Annotated[
        int | None, Option("print the first C characters of what was taken of each document", metavar="C")
    ] = None
    blend: Annotated[
        Path | None, Option("the run's blend plan, where the data is now if it was moved", metavar="FILE")
    ] = None


def register(subparsers: Subparsers) -> None:
    """Add ``explain`` to the command line."""
    add_command(
        subparsers,
        "explain",
        lambda: ExplainOptions,
        _run,
        text="list the documents that a step of a run was trained on",
        description="Computes, from config.yaml, blend.lock.yaml and, for a run that goes on from another one, "
        "ordinals.lock.yaml of a run directory, the samples of a step, and reads the shards' indexes for the "
        "documents in them. Per sample: number, language, epoch, window; per document: shard, number, tokens taken. "
        "`salamandra data inspect SHARD --document N` prints a document.",
    )


def _run(options: ExplainOptions) -> int:
    from megatron_salamandra.data import RunRecord
    from salamandra_data.errors import DataError
    from salamandra_data.tokenization import cached_encoder

    record = RunRecord(options.run, options.blend)
    samples = record.step_samples(options.step)
    if options.sample is not None:
        if not 0 <= options.sample < len(samples):
            raise DataError(f"--sample {options.sample}: a step has samples 0 to {len(samples) - 1}")
        samples = samples[options.sample : options.sample + 1]
    for sample in samples:
        contents = record.contents(options.step, sample)
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
            if options.text:
                ids = record.ids(
                    part, max(_TEXT_TOKENS, options.text)
                )  # a token is a character or more, mostly
                text = cached_encoder(record.plans[0].tokenizer.path).decode(ids)
                print(f"    {text[: options.text]!r}")
    return 0
