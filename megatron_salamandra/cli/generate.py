"""``salamandra generate``: continue texts with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import OneOf, Option, Options

_SOURCE = OneOf(required=True)


class GenerateOptions(Options):
    """Options of ``salamandra generate``."""

    checkpoint: Annotated[
        Path | None,
        Option(
            "step directory, checkpoints directory or run directory (then its latest complete checkpoint)",
            metavar="DIR",
            one_of=_SOURCE,
        ),
    ] = None
    hf: Annotated[
        Path | None, Option("directory written by `salamandra hf export`", metavar="DIR", one_of=_SOURCE)
    ] = None
    prompt: Annotated[tuple[str, ...], Option("texts to continue")]
    max_new_tokens: Annotated[int, Option("how far a text is continued")] = 64
    temperature: Annotated[float, Option("0 takes the likeliest token", metavar="T")] = 0.0
    top_p: Annotated[float, Option("sample from this share of probability", metavar="P")] = 1.0
    seed: Annotated[int, Option("of the sampling")] = 1234
    device: Annotated[str, Option("cpu, cuda, cuda:1, or auto: a GPU if there is one", metavar="NAME")] = (
        "auto"
    )


def register(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    add_command(
        subparsers,
        "generate",
        lambda: GenerateOptions,
        _generate,
        text="continue texts with a checkpoint or an export",
        description="Reads a sharded checkpoint, or a Hugging Face model directory, and prints each prompt with its "
        "continuation. Writes no files.",
    )


def _generate(options: GenerateOptions) -> int:
    from megatron_salamandra.evaluation import check_request, generate_texts
    from megatron_salamandra.hf import choose_device, load_checkpoint, load_export

    sampling: dict[str, Any] = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    check_request(list(options.prompt), **sampling)
    device = choose_device(options.device)
    if options.hf is not None:
        loaded = load_export(options.hf, device=device)
    else:
        assert options.checkpoint is not None  # the options have one of the two
        loaded = load_checkpoint(options.checkpoint, device=device)
    for number, result in enumerate(generate_texts(loaded, list(options.prompt), **sampling)):
        print(("\n" if number else "") + result.prompt + result.completion, flush=True)
    return 0
