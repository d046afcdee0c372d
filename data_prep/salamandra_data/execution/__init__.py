"""Running numbered tasks of consecutive stages: on this machine, as SLURM job arrays, or on Ray.

A :class:`Stage` is a name, a number of tasks and a function of the task's number. Tasks share a file system and
nothing else: what a later stage needs, an earlier one has written. :func:`run_stages` gives the stages to datatrove's
executors, each stage after the one before it, and passes over tasks that an earlier run completed. A task that dies
is run again from its start, so tasks write files whole or not at all, under names that follow from their number.
"""

from __future__ import annotations

from salamandra_data.execution.outcome import Outcome
from salamandra_data.execution.run_stages import run_stages
from salamandra_data.execution.settings import (
    ExecutorSettings,
    LocalSettings,
    RaySettings,
    SlurmSettings,
)
from salamandra_data.execution.stage import Stage, share

__all__ = [
    "ExecutorSettings",
    "LocalSettings",
    "Outcome",
    "RaySettings",
    "SlurmSettings",
    "Stage",
    "run_stages",
    "share",
]
