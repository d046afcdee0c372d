"""``salamandra data verify``: check shards and plans."""

from __future__ import annotations

import argparse

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._options import add_command, location


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "verify",
        _run,
        text="check shards and blend plans down to the last byte",
        description="Checks structure, checksums, ids, document ends, counts and tokenizer of every shard named or "
        "found, and every shard of a blend plan. Exit code 0 if all is well, else 1 with each problem named.",
    )
    parser.add_argument(
        "path", nargs="+", type=location, metavar="PATH", help="shards, directories or blend plans (.yaml)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.blend_plan import verify

    report = verify(arguments.path)
    for line in report.lines():
        print(line)
    return 1 if report.problems else 0
