"""The text of a job: a batch script that a person can read, keep and submit again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_salamandra.cluster.profile import ClusterProfile


@dataclass(frozen=True)
class JobScript:
    """What one job is.

    Attributes:
        name: of the job.
        nodes: with the spare ones.
        time: limit, as SLURM writes it; None leaves it to the partition.
        lead_seconds: between the signal to the batch shell and the time limit.
        log: file that the job appends to.
        directory: where the command runs; relative paths in the configuration are relative to it.
        python: interpreter of the supervisor.
        arguments: of ``megatron_salamandra.cluster.job``.
        sbatch: options that win over the profile's.
        tasks_per_node: that share what the profile gives to a node's ranks; None for as many as there are ranks.
        without_gpus: take the profile's options for jobs without GPUs.
    """

    profile: ClusterProfile
    name: str
    nodes: int
    time: str | None
    lead_seconds: int
    log: Path
    directory: Path
    python: str
    arguments: Sequence[str]
    sbatch: Mapping[str, str] = field(default_factory=dict)
    tasks_per_node: int | None = None
    without_gpus: bool = False

    def options(self) -> dict[str, str]:
        """Options of sbatch by their long names; an empty value stands for an option without one."""
        tasks = self.tasks_per_node or self.profile.tasks_per_node
        own = {
            "job-name": self.name,
            "nodes": str(self.nodes),
            "ntasks-per-node": str(tasks),
            "cpus-per-task": str(max(1, self.profile.tasks_per_node * self.profile.cpus_per_task // tasks)),
        }
        rounds = {
            # To the batch shell alone, in whose place the supervisor runs.
            "signal": f"B:USR1@{self.lead_seconds}",
            "requeue" if self.profile.limits.may_requeue else "no-requeue": "",
            # The job outlives a node that fails: the supervisor goes on with the others.
            "no-kill": "",
            "open-mode": "append",
            "output": str(self.log),
            "chdir": str(self.directory),
        }
        time = {} if self.time is None else {"time": self.time}
        site = self.profile.without_gpus if self.without_gpus else self.profile.sbatch
        return {**own, **site, **time, **rounds, **self.sbatch}

    def render(self) -> str:
        """The script."""
        lines = ["#!/bin/bash"]
        lines += [
            f"#SBATCH --{name}{f'={_quoted(value)}' if value else ''}"
            for name, value in self.options().items()
        ]
        lead = ["--lead", str(self.lead_seconds)]
        command = [self.python, "-u", "-m", "megatron_salamandra.cluster.job", *lead, *self.arguments]
        lines += [
            "",
            "# The supervisor takes the place of this shell, and gets SLURM's signals. One that comes before Python",
            "# can take it must not kill it: it looks at the clock as well.",
            "trap '' USR1",
        ]
        lines += [f"exec {shlex.join(command)}", ""]
        return "\n".join(lines)


def _quoted(value: str) -> str:
    """A value as sbatch reads it in a script: cut at white space and #, unless it stands between quotes."""
    if not any(character.isspace() or character in "#'\"\\" for character in value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
