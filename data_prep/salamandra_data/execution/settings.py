"""What each executor needs to know."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from salamandra_data.errors import DataError

DEFAULT_MEMORY_PER_CPU_GB = 4

_TIME = re.compile(r"(\d+-\d{1,2}(:\d{2}){0,2}|\d+(:\d{2}){0,2})")
_OPTION = re.compile(r"[a-z][a-z-]*")
_SET_OTHERWISE = {
    "account": "--slurm-account",
    "cpus-per-task": "--cpus-per-task",
    "mem": "--memory-per-cpu",
    "mem-per-cpu": "--memory-per-cpu",
    "partition": "--slurm-partition",
    "qos": "--slurm-qos",
    "time": "--slurm-time",
}
_OF_THE_STAGES = ("array", "dependency", "error", "export", "job-name", "output", "parsable", "wait", "wrap")


@dataclass(frozen=True)
class LocalSettings:
    """This machine.

    Attributes:
        workers: tasks that run at once, each in a process of its own; 1 runs them in this process.
    """

    workers: int = 1

    def check(self) -> None:
        """Refuse values outside their range.

        Raises:
            DataError: naming option and value.
        """
        if self.workers < 1:
            raise DataError(f"--workers {self.workers}: at least 1 is needed")


@dataclass(frozen=True)
class SlurmSettings:
    """A cluster under SLURM: one job array per stage, each depending on the one before it.

    Attributes:
        partition: where to run.
        time: limit of one task, in SLURM's words (``HH:MM:SS``, minutes, ``D-HH``).
        cpus_per_task: cores of one task.
        memory_per_cpu_gb: GiB per core.
        max_running: tasks of an array that run at once; all when None.
        qos: quality of service, if the site wants one.
        account: who pays, if the site wants one.
        options: further ``sbatch`` options, name without dashes to value; an empty value is a flag.
        before_submitting: called with these settings and how many tasks are about to be submitted; raises what speaks
            against them.
        wait: until all is done, and submit again what failed.
        setup: shell command before a task starts, when this Python's directory is on the path already.
    """

    partition: str
    time: str = "04:00:00"
    cpus_per_task: int = 1
    memory_per_cpu_gb: int = DEFAULT_MEMORY_PER_CPU_GB
    max_running: int | None = None
    qos: str | None = None
    account: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    setup: str | None = None
    wait: bool = False
    before_submitting: Callable[[SlurmSettings, int], None] | None = None

    def check(self) -> None:
        """As :meth:`LocalSettings.check`."""
        if not _TIME.fullmatch(self.time):
            raise DataError(f"--slurm-time {self.time!r} is not a time as sbatch takes it, such as 04:00:00")
        for name, value in (
            ("--cpus-per-task", self.cpus_per_task),
            ("--memory-per-cpu", self.memory_per_cpu_gb),
            ("--workers", 1 if self.max_running is None else self.max_running),
        ):
            if value < 1:
                raise DataError(f"{name} {value}: at least 1 is needed")
        for name, option_value in self.options.items():
            _check_option(name, option_value)


def _check_option(name: str, value: str) -> None:
    given = f"--slurm-option {name}{f'={value}' if value else ''}"
    if not _OPTION.fullmatch(name) or "\n" in value:
        raise DataError(f"{given}: not an option of sbatch, such as constraint=highmem or exclusive")
    if name in _SET_OTHERWISE:
        raise DataError(f"{given}: use {_SET_OTHERWISE[name]}")
    if name in _OF_THE_STAGES:
        raise DataError(f"{given}: is set for each stage; leave it away")


@dataclass(frozen=True)
class RaySettings:
    """A Ray cluster; this process submits and waits.

    Attributes:
        address: of the cluster; a cluster is started on this machine when None.
        workers: tasks that run at once; as many as there are when None.
        cpus_per_task: cores that a task reserves.
        memory_per_cpu_gb: GiB that a task reserves per core.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_task: int = 1
    memory_per_cpu_gb: float = DEFAULT_MEMORY_PER_CPU_GB

    def check(self) -> None:
        """As :meth:`LocalSettings.check`."""
        if self.workers is not None and self.workers < 1:
            raise DataError(f"--workers {self.workers}: at least 1 is needed")
        if self.cpus_per_task < 1 or self.memory_per_cpu_gb <= 0:
            raise DataError(
                f"--cpus-per-task {self.cpus_per_task} and --memory-per-cpu {self.memory_per_cpu_gb:g} "
                "must be positive"
            )


ExecutorSettings: TypeAlias = LocalSettings | SlurmSettings | RaySettings
