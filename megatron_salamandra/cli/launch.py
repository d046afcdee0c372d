"""``salamandra launch``: a run on a SLURM cluster, checked before it is queued."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.errors import UserError

if TYPE_CHECKING:
    from megatron_salamandra.cluster import LaunchOptions


def register(subparsers: Subparsers) -> None:
    """Add ``launch`` to the command line."""
    add_command(
        subparsers,
        "launch",
        _options,
        _launch,
        text="check a run or a command and put it into a SLURM queue",
        description="Reads a run configuration and a cluster's profile, refuses what would fail (layout, data, memory, "
        "time, disk and quota, a run directory in use, account, qos, limits and nodes of the partition, what sbatch "
        "itself refuses), writes RUN/launch/NNNN/ with the job's script, and submits it. Relative paths are relative "
        "to where this is called. `salamandra launch --cluster NAME -- hf export ...` does the same with any other "
        "command of salamandra, and with `-- -m MODULE ...` of Python.",
        epilog="Exit codes: 0 submitted, 2 refused; nothing is left behind by a launch that was refused.",
    )


def _options() -> type[LaunchOptions]:
    from megatron_salamandra.cluster import LaunchOptions

    return LaunchOptions


def _launch(options: LaunchOptions) -> int:
    from megatron_salamandra.cluster import launch

    problem = _problem(options.command, inside=options.container is not None) if options.command else None
    made = launch(options, problem)
    for note in made.notes:
        print(note)
    print(f"script {made.path}")
    if made.job is None:
        print("not submitted")
        return 0
    print(f"job {made.job}\nlog {str(made.script.log).replace('%j', made.job)}")
    if options.command:
        print(f"stop it: scancel {made.job}")
    else:
        print(f"look at it: salamandra status {made.directory}\nstop it: salamandra stop {made.directory}")
    return 0


def _problem(command: Sequence[str], *, inside: bool) -> str | None:
    """What is wrong with a command, in its own words; None if it could run.

    Args:
        inside: it runs in an image, whose modules are not looked for here.
    """
    if command[0] == "-m":
        if len(command) < 2:
            return "-m: name a module of Python\n  for example -- -m lm_eval --model hf ..."
        missing = not inside and importlib.util.find_spec(command[1].split(".")[0]) is None
        return f"-m {command[1]}: there is no such module in {sys.executable}" if missing else None
    if command[0] in ("launch", "train"):
        return f"-- {command[0]}: runs are launched by their configuration\n  salamandra launch CONFIG --cluster NAME"
    from megatron_salamandra.cli import parse_command

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            arguments = parse_command(command)
            arguments.check(arguments)
    except SystemExit as end:
        return said.getvalue().strip() if end.code else f"-- {' '.join(command)} only shows help: run it here"
    except UserError as error:
        return str(error)
    return None
