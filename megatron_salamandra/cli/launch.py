"""``salamandra launch``: a run on a SLURM cluster, checked before it is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_salamandra.cli._command import Subparsers, add_command

if TYPE_CHECKING:
    from megatron_salamandra.cluster import LaunchOptions


def register(subparsers: Subparsers) -> None:
    """Add ``launch`` to the command line."""
    add_command(
        subparsers,
        "launch",
        _options,
        _launch,
        text="check a run and put it into a SLURM queue",
        description="Reads a run configuration and a cluster's profile, refuses what would fail (layout, data, memory, "
        "time, disk, a run directory in use, what sbatch itself refuses), writes RUN/launch/NNNN/ with the job's "
        "script, and submits it. Relative paths are relative to where this is called.",
        epilog="Exit codes: 0 submitted, 2 refused.",
    )


def _options() -> type[LaunchOptions]:
    from megatron_salamandra.cluster import LaunchOptions

    return LaunchOptions


def _launch(options: LaunchOptions) -> int:
    from megatron_salamandra.cluster import launch

    made = launch(options)
    for note in made.notes:
        print(note)
    print(f"script {made.path}")
    if made.job is None:
        print("not submitted")
        return 0
    run = made.path.parents[2]
    print(f"job {made.job}\nlog {str(made.script.log).replace('%j', made.job)}")
    print(f"look at it: salamandra status {run}\nstop it: salamandra stop {run}")
    return 0
