"""Running work that is cut into parts: in processes of this machine, as SLURM job arrays, or on Ray.

A :class:`Stage` is a name, a number of tasks and a function of the task's number. Tasks share a file system and
nothing else: what a later stage needs, an earlier one has written. :func:`run_stages` gives the stages to datatrove's
executors, each stage after the one before it, and passes over tasks that an earlier run completed. A task that dies
is run again from its start, so tasks write files whole or not at all, under names that follow from their number.

A :class:`Pass` is work whose units are known once the pass before it is complete. :class:`Processes` does passes here,
with units dealt to a :class:`WorkerPool` one by one; :class:`Tasks` makes a stage of each.
"""

from __future__ import annotations

from salamandra_data.execution.executors import run_stages
from salamandra_data.execution.passes import Pass, PassExecutor, Processes, Tasks
from salamandra_data.execution.settings import (
    ExecutorSettings,
    LocalSettings,
    RaySettings,
    SlurmSettings,
)
from salamandra_data.execution.stage import Outcome, Stage, share
from salamandra_data.execution.worker_pool import Counters, WorkerDied, WorkerPool

__all__ = [
    "Counters",
    "ExecutorSettings",
    "LocalSettings",
    "Outcome",
    "Pass",
    "PassExecutor",
    "Processes",
    "RaySettings",
    "SlurmSettings",
    "Stage",
    "Tasks",
    "WorkerDied",
    "WorkerPool",
    "run_stages",
    "share",
]
