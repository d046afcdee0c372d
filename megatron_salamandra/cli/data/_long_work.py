"""Commands that work for long, on this machine or on others."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from megatron_salamandra.foundation.signals import INTERRUPTED, Interruption

if TYPE_CHECKING:
    from salamandra_data.execution import Outcome


def until_interrupted(work: Callable[[], int], stays: str) -> int:
    """Do ``work``; SIGTERM ends it as Ctrl-C does, and the user reads what ``stays``.

    Returns:
        What ``work`` does, or :data:`INTERRUPTED`.
    """
    with Interruption(signal.SIGINT, signal.SIGTERM, tidy=True) as interruption:
        try:
            return work()
        except BaseException:
            if not interruption.arrived:
                raise
    print(f"\ninterrupted: {stays} stay; run the same command again to continue", file=sys.stderr)
    return INTERRUPTED


def tell_submission(outcome: Outcome) -> None:
    """Which SLURM jobs will do the work, if it is not done."""
    if outcome.failure is not None:
        print(f"of what was submitted before, this failed and is submitted again:\n{outcome.failure}")
    if outcome.jobs and not outcome.submitted:
        print("nothing was submitted: jobs of this run are pending or running")
    for stage, numbers in outcome.jobs.items():
        print(f"{'submitted ' if outcome.submitted else ''}{stage}: SLURM job {', '.join(numbers)}")
    if not outcome.done:
        print(
            "run the same command again: it shows the result once the jobs are done, or submits what failed"
        )
