"""The further jobs of a chain: jobs of one run that follow on each other, where a site forbids requeueing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from megatron_salamandra.cluster.slurm_command import SlurmError, answer

JOBS = "jobs"
"""File of a launch with the numbers of its jobs, one a line, in their order."""


def waiting_links(launch: Path, job: str) -> tuple[str, ...]:
    """Jobs of a launch after this one that are still in the queue; none where that cannot be told."""
    try:
        numbers = (launch / JOBS).read_text(encoding="utf-8").split()
        later = numbers[numbers.index(job) + 1 :]
    except (OSError, ValueError):  # submitted by hand
        return ()
    found = []
    for number in later:
        # One by one: a single number that SLURM has forgotten would spoil the answer for all.
        with contextlib.suppress(SlurmError):
            found += answer(["squeue", "--noheader", "--format=%i", f"--jobs={number}"]).split()
    return tuple(found)


def cancel_links(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue; one that has left it is no error."""
    for job in jobs:
        with contextlib.suppress(SlurmError):
            answer(["scancel", job])
