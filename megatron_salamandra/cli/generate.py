"""``salamandra generate``: continue texts with a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "generate",
        help="continue texts with a checkpoint or an export",
        description="Reads a sharded checkpoint, or a Hugging Face model directory, and prints each prompt with its "
        "continuation. Writes no files.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="step directory, checkpoints directory or run directory (then its latest complete checkpoint)",
    )
    source.add_argument("--hf", type=Path, metavar="DIR", help="directory written by `salamandra hf export`")
    parser.add_argument("--prompt", nargs="+", required=True, metavar="TEXT", help="texts to continue")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default 64")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="sample from this share of probability (default 1)",
    )
    parser.add_argument("--seed", type=int, default=1234, metavar="N", help="of the sampling (default 1234)")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:1, or auto: a GPU if there is one (default)",
    )
    parser.set_defaults(handler=_generate)


def _generate(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.evaluation import check_request, generate_texts
    from megatron_salamandra.hf import choose_device, load_checkpoint, load_export

    sampling = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "seed": arguments.seed,
    }
    check_request(arguments.prompt, **sampling)
    device = choose_device(arguments.device)
    if arguments.hf is not None:
        loaded = load_export(arguments.hf, device=device)
    else:
        loaded = load_checkpoint(arguments.checkpoint, device=device)
    for number, result in enumerate(generate_texts(loaded, arguments.prompt, **sampling)):
        print(("\n" if number else "") + result.prompt + result.completion, flush=True)
    return 0
