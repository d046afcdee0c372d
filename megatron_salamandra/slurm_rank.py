"""What srun starts for each rank: ``python -m megatron_salamandra.slurm_rank CONFIG [key=value ...]``.

Turns SLURM's variables into those of torch.distributed and becomes the training process. There is no shell in between:
under proctrack/cgroup SLURM signals the task alone, and the task is this process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_USAGE

_WORLD = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}


class TaskError(UserError):
    """This process is no task of srun."""

    exit_code = EXIT_USAGE


def join_world(environment: MutableMapping[str, str]) -> None:
    """Set RANK, LOCAL_RANK and WORLD_SIZE from SLURM's variables.

    Raises:
        TaskError: a variable is missing.
    """
    for ours, theirs in _WORLD.items():
        if theirs not in environment:
            raise TaskError(
                f"{theirs} is not set: this is started by srun\n  on one machine use salamandra train"
            )
        environment[ours] = environment[theirs]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rank and end this process; returns only where there is no rank to run.

    "Saved, run me again" (75) becomes 0, or srun would kill ranks that are still leaving; the code itself is in the
    rank's report.
    """
    try:
        join_world(os.environ)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    from megatron_salamandra import train

    train.leave_process(train.run_as_process(argv), stopped_as=EXIT_DONE)


if __name__ == "__main__":
    sys.exit(main())
