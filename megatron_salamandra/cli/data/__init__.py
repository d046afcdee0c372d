"""``salamandra data``: from text to a tokenizer, indexed shards and a blend plan. One module per command."""

from __future__ import annotations

import os
import pkgutil
from importlib import import_module

from megatron_salamandra.cli._command import CommandParser, Subparsers

COMMANDS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def register(subparsers: Subparsers) -> None:
    """Add ``data`` and its commands to the command line."""
    group = subparsers.add_parser(
        "data",
        help="train a tokenizer, tokenize text to shards, blend languages, look at and verify the result",
        description="Prepares data on CPU, without torch. In this order: train-tokenizer, tokenize, blend; "
        "inspect and verify look at what they wrote.",
    )
    group.fill = _add_commands


def _add_commands(group: CommandParser) -> None:
    # Before numpy is imported. No command multiplies matrices, and workers of a process without threads can be forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").register(commands)
