"""``salamandra quickstart``: the whole system on real text, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class QuickstartOptions(Options):
    """Options of ``salamandra quickstart``."""

    out: Annotated[
        Path,
        Option("directory for everything: a new one, or that of an earlier quick start", metavar="DIR"),
    ] = Path("runs/quickstart")
    source: Annotated[
        Literal["pip", "debian"],
        Option(
            "text from Python wheels (some 40 MB to download) or from Debian packages (some 180 MB, needs apt-get "
            "but no root)"
        ),
    ] = "pip"
    ranks: Annotated[
        str,
        Option(
            "processes to train on: 1, 2 or a multiple of 4; auto: 4, or as many GPUs as fit", metavar="N"
        ),
    ] = "auto"
    fresh: Annotated[
        bool, Option("delete what an earlier quick start made there, but downloads, and start over")
    ] = False
    overrides: Annotated[
        tuple[str, ...],
        Option(
            "overrides of configs/quickstart.yaml, as training.steps=50",
            metavar="KEY=VALUE",
            positional=True,
            anywhere=True,
        ),
    ] = ()


def register(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    add_command(
        subparsers,
        "quickstart",
        lambda: QuickstartOptions,
        _quickstart,
        text="download text, train a small model on it, export and try it",
        description="Downloads real text in more than 30 languages under free licences, trains a tokenizer, tokenises, "
        "blends, trains a small Salamandra (tensor 2 x pipeline 2 on 4 CPU ranks, or on GPUs if there are any), stops "
        "half-way, resumes, exports to Hugging Face format, compares the logits of transformers with ours, and "
        "generates text. Writes everything below --out; run again, it goes on with what is missing or has changed.",
    )


def _quickstart(options: QuickstartOptions) -> int:
    from megatron_salamandra.quickstart import QuickstartError, QuickstartJob, run_quickstart

    if options.ranks != "auto" and not options.ranks.isdecimal():
        raise QuickstartError(
            f"--ranks {options.ranks}: not a number\n  allowed: auto, 1, 2 and multiples of 4"
        )
    job = QuickstartJob(
        out=options.out,
        source=options.source,
        ranks=None if options.ranks == "auto" else int(options.ranks),
        fresh=options.fresh,
        overrides=options.overrides,
    )
    run_quickstart(job)
    return 0
