"""``salamandra data verify``: check shards and plans."""

from __future__ import annotations

from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.option_groups import Place


class VerifyOptions(Options):
    """The options of ``salamandra data verify``."""

    path: Annotated[
        tuple[Place, ...],
        Option("shards, directories or blend plans (.yaml)", metavar="PATH", positional=True),
    ]
    renew: Annotated[
        bool,
        Option(
            "add a checksum of themselves to the manifests of intact local shards that have none, as earlier ones"
        ),
    ] = False


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "verify",
        lambda: VerifyOptions,
        _run,
        text="check shards and blend plans down to the last byte",
        description="Checks structure, checksums, ids, document ends, counts and tokenizer of every shard named or "
        "found, and every shard of a blend plan. Exit code 0 if all is well, else 1 with each problem named.",
    )


def _run(options: VerifyOptions) -> int:
    from salamandra_data.blend_plan import verify

    report = verify(list(options.path), renew=options.renew)
    for line in report.lines():
        print(line)
    return 1 if report.problems else 0
