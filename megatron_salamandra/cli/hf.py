"""``salamandra hf``: exchange with Hugging Face."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers

EXIT_FAILURE = 1


def register(subparsers: Subparsers) -> None:
    """Add the group to the command line."""
    group = subparsers.add_parser("hf", help="export a checkpoint for Hugging Face transformers")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_export(commands)
    _add_compare(commands)


def _add_export(commands: Subparsers) -> None:
    export = commands.add_parser(
        "export",
        help="write a checkpoint as a LlamaForCausalLM directory",
        description="Reads a sharded checkpoint (model weights, config.yaml, state.json, tokenizer.model) and writes "
        "a directory that transformers loads: config.json, model-*.safetensors with index, generation_config.json, "
        "a fast tokenizer compared with the SentencePiece model, and a model card. Runs on CPU in one pass with "
        "memory for one layer's tensor. Says so, here and in the model card, if the tokenizer does not give the same "
        "ids as the SentencePiece model.",
    )
    export.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="step directory, checkpoints directory or run directory (then its latest complete checkpoint)",
    )
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to create")
    export.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="dtype of the weights; auto keeps the stored one (default)",
    )
    export.add_argument(
        "--shard-gib", type=float, default=5.0, metavar="N", help="most GiB of one weight file (default 5)"
    )
    export.add_argument(
        "--tokenizer", type=Path, metavar="MODEL", help="SentencePiece model, instead of the checkpoint's own"
    )
    export.add_argument(
        "--verify-text",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="documents to compare the tokenizer on, in any format of `salamandra data tokenize`; "
        "a built-in set of difficult texts if not given",
    )
    export.add_argument(
        "--text-key", default="text", metavar="KEY", help="key of the text in --verify-text files"
    )
    export.add_argument("--force", action="store_true", help="replace an earlier export in --out")
    export.set_defaults(handler=_export)


def _add_compare(commands: Subparsers) -> None:
    compare = commands.add_parser(
        "compare",
        help="compare the logits of an export with those of the training model",
        description="Runs the training model of a checkpoint on one rank, and transformers on an export of it, both in "
        "fp32 on the same random tokens, and prints how far the logits are apart. Writes nothing. Exit code 1 if they "
        "are further apart than the tolerance.",
    )
    compare.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="step directory, checkpoints directory or run directory (then its latest complete checkpoint)",
    )
    compare.add_argument(
        "--hf", type=Path, required=True, metavar="DIR", help="directory written by `salamandra hf export`"
    )
    compare.add_argument(
        "--platform",
        choices=("auto", "cuda", "host"),
        default="host",
        help="where the training model runs (default host: the CPU)",
    )
    compare.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="X",
        help="largest difference of a logit (default 1e-4)",
    )
    compare.set_defaults(handler=_compare)


def _export(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.hf import document_texts, export_checkpoint, shard_bytes_of

    texts = document_texts(arguments.verify_text, arguments.text_key) if arguments.verify_text else None
    report = export_checkpoint(
        arguments.checkpoint,
        arguments.out,
        dtype=arguments.dtype,
        shard_bytes=shard_bytes_of(arguments.shard_gib),
        tokenizer_model=arguments.tokenizer,
        verification_texts=texts,
        force=arguments.force,
        on_progress=_progress_printer(),
    )
    print(f"checkpoint  {report.checkpoint}" + ("" if report.step is None else f" (step {report.step:,})"))
    print(
        f"weights     {report.parameters:,} parameters as {report.dtype}, {report.weight_bytes / 1e9:.2f} GB "
        f"in {len(report.weight_files)} file(s)"
    )
    print(f"tokenizer   {report.tokenizer_note}")
    print(f"written     {report.out}")
    return 0


def _progress_printer() -> Callable[[int, int], None]:
    """Prints rate and time left on stderr, at most once in five seconds."""
    start = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 5:
            return
        last = now
        rate = done / (now - start)
        print(
            f"{done / total:6.1%}  {done / 1e9:.1f} of {total / 1e9:.1f} GB  {rate / 1e6:.0f} MB/s  "
            f"{(total - done) / rate:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    return show


def _compare(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.hf import OptionError, compare_with_export

    if not 0 <= arguments.tolerance < math.inf:
        raise OptionError(f"--tolerance {arguments.tolerance:g}: must be a finite number, 0 or more")
    parity = compare_with_export(arguments.checkpoint, arguments.hf, platform=arguments.platform)
    print(parity.summary())
    if parity.max_difference <= arguments.tolerance:
        return 0
    print(f"further apart than the tolerance of {arguments.tolerance:g}", file=sys.stderr)
    return EXIT_FAILURE
