"""``salamandra hf``: exchange with Hugging Face."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Literal

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE
from megatron_salamandra.foundation.options import Option, Options
from megatron_salamandra.foundation.progress import ProgressLine

_CHECKPOINT = "step directory, checkpoints directory or run directory (then its latest complete checkpoint)"


class ExportOptions(Options):
    """Options of ``salamandra hf export``."""

    checkpoint: Annotated[Path, Option(_CHECKPOINT, metavar="DIR")]
    out: Annotated[Path, Option("directory to create", metavar="DIR")]
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"],
        Option("dtype of the weights; auto keeps the stored one"),
    ] = "auto"
    shard_gib: Annotated[float, Option("most GiB of one weight file", metavar="N")] = 5.0
    tokenizer: Annotated[
        Path | None, Option("SentencePiece model, instead of the checkpoint's own", metavar="MODEL")
    ] = None
    verify_text: Annotated[
        tuple[Path, ...],
        Option(
            "documents to compare the tokenizer on, in any format of `salamandra data tokenize`; "
            "a built-in set of difficult texts if not given",
            metavar="FILE",
        ),
    ] = ()
    text_key: Annotated[str, Option("key of the text in --verify-text files", metavar="KEY")] = "text"
    force: Annotated[bool, Option("replace an earlier export in --out")] = False


class CompareOptions(Options):
    """Options of ``salamandra hf compare``."""

    checkpoint: Annotated[Path, Option(_CHECKPOINT, metavar="DIR")]
    hf: Annotated[Path, Option("directory written by `salamandra hf export`", metavar="DIR")]
    platform: Annotated[
        Literal["auto", "cuda", "host"], Option("where the training model runs; host is the CPU")
    ] = "host"
    tolerance: Annotated[float, Option("largest difference of a logit")] = 1e-4


def register(subparsers: Subparsers) -> None:
    """Add the group to the command line."""
    group = subparsers.add_parser("hf", help="export a checkpoint for Hugging Face transformers")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_command(
        commands,
        "export",
        lambda: ExportOptions,
        _export,
        text="write a checkpoint as a LlamaForCausalLM directory",
        description="Reads a sharded checkpoint (model weights, config.yaml, state.json, tokenizer.model) and writes "
        "a directory that transformers loads: config.json, model-*.safetensors with index, generation_config.json, "
        "a fast tokenizer compared with the SentencePiece model, and a model card. Runs on CPU in one pass with "
        "memory for one layer's tensor. Says so, here and in the model card, if the tokenizer does not give the same "
        "ids as the SentencePiece model.",
        before_queue=_check_export,
    )
    add_command(
        commands,
        "compare",
        lambda: CompareOptions,
        _compare,
        text="compare the logits of an export with those of the training model",
        description="Runs the training model of a checkpoint on one rank, and transformers on an export of it, both in "
        "fp32 on the same random tokens, and prints how far the logits are apart. Writes nothing. Exit code 1 if they "
        "are further apart than the tolerance.",
    )


def _check_export(options: ExportOptions) -> None:
    from megatron_salamandra.run_directory import resolve_checkpoint

    resolve_checkpoint(options.checkpoint)


def _export(options: ExportOptions) -> int:
    from megatron_salamandra.hf import document_texts, export_checkpoint, shard_bytes_of

    texts = document_texts(list(options.verify_text), options.text_key) if options.verify_text else None
    shard_bytes = shard_bytes_of(options.shard_gib)
    progress = _Written()
    with ProgressLine("export", progress.share, 1.0, progress.details):
        report = export_checkpoint(
            options.checkpoint,
            options.out,
            dtype=options.dtype,
            shard_bytes=shard_bytes,
            tokenizer_model=options.tokenizer,
            verification_texts=texts,
            force=options.force,
            on_progress=progress.advance,
        )
    print(f"checkpoint  {report.checkpoint}" + ("" if report.step is None else f" (step {report.step:,})"))
    print(
        f"weights     {report.parameters:,} parameters as {report.dtype}, {report.weight_bytes / 1e9:.2f} GB "
        f"in {len(report.weight_files)} file(s)"
    )
    print(f"tokenizer   {report.tokenizer_note}")
    print(f"written     {report.out}")
    return 0


class _Written:
    """How far the weights are, for the line of progress."""

    def __init__(self) -> None:
        self._done, self._total = 0, 1

    def advance(self, done: int, total: int) -> None:
        """Take note of the bytes written, of all bytes."""
        self._done, self._total = done, total

    def share(self) -> float:
        """What is written, of 1."""
        return self._done / self._total

    def details(self, seconds: float) -> list[str]:
        """Gigabytes and rate."""
        return [
            f"{self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB",
            f"{self._done / seconds / 1e6:.0f} MB/s",
        ]


def _compare(options: CompareOptions) -> int:
    from megatron_salamandra.hf import OptionError, compare_with_export

    if not 0 <= options.tolerance < math.inf:
        raise OptionError(f"--tolerance {options.tolerance:g}: must be a finite number, 0 or more")
    parity = compare_with_export(options.checkpoint, options.hf, platform=options.platform)
    print(parity.summary())
    if parity.max_difference <= options.tolerance:
        return 0
    print(f"further apart than the tolerance of {options.tolerance:g}", file=sys.stderr)
    return EXIT_FAILURE
