"""What the supervisor asks of SLURM, through its commands."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron_salamandra.cluster.slurm_command import SlurmError, answer
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE

_FIELD = re.compile(r"(\w+)=(\S*)")
_TASK_ENDED = re.compile(r"srun: error: (?P<host>[\w.-]+): tasks? (?P<tasks>[\d,\[\]-]+): (?P<how>.+)")


class NoJob(SlurmError):
    """The command was started outside of a SLURM job."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class SlurmJob:
    """The job that this process runs in.

    Attributes:
        job: its number, as text.
        restarts: how often SLURM has started it again.
        nodes: of the allocation.
        tasks_per_node: ranks of a node.
    """

    job: str
    restarts: int
    nodes: tuple[str, ...]
    tasks_per_node: int

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> SlurmJob:
        """The job of the environment.

        Raises:
            NoJob: there is none.
            SlurmError: ``scontrol`` cannot tell its nodes.
        """
        try:
            job, nodes = environment["SLURM_JOB_ID"], environment["SLURM_JOB_NODELIST"]
        except KeyError as error:
            raise NoJob(
                f"{error.args[0]} is not set: this runs inside a SLURM job\n  submit it with sbatch"
            ) from None
        tasks = environment.get("SLURM_NTASKS_PER_NODE", "1")
        names = tuple(answer(["scontrol", "show", "hostnames", nodes]).split())
        return cls(job, int(environment.get("SLURM_RESTART_COUNT", "0")), names, int(tasks.split("(")[0]))

    def fields(self) -> dict[str, str]:
        """What ``scontrol show job`` says: ``JobState``, ``EndTime``, ``Requeue``, ...

        Raises:
            SlurmError: it does not answer.
        """
        return dict(_FIELD.findall(answer(["scontrol", "show", "job", self.job, "--oneliner"])))

    def seconds_left(self) -> float | None:
        """Before the time limit; None without one."""
        return _seconds_until(self.fields().get("EndTime", ""))

    def answering(self) -> tuple[str, ...]:
        """Nodes of the allocation that SLURM does not hold for lost."""
        lines = answer(
            ["sinfo", "--noheader", "--Node", "--nodes", ",".join(self.nodes), "--format", "%N %T"]
        )
        states = dict(line.split()[:2] for line in lines.splitlines() if len(line.split()) >= 2)
        # A star behind a state: the node does not answer.
        gone = ("down", "fail", "error", "unknown", "drained")
        return tuple(
            node
            for node in self.nodes
            if not states.get(node, "unknown").endswith("*")
            and not states.get(node, "unknown").startswith(gone)
        )

    def requeue(self) -> None:
        """Put the job back into the queue; ends this process soon.

        Raises:
            SlurmError: SLURM refuses.
        """
        answer(["scontrol", "requeue", self.job])

    def exclude(self, hosts: Sequence[str]) -> None:
        """Keep the job's next allocation away from hosts.

        Raises:
            SlurmError: SLURM refuses.
        """
        answer(["scontrol", "update", f"JobId={self.job}", f"ExcNodeList={','.join(hosts)}"])

    def cancel_step(self, step: str, signal_name: str = "KILL") -> None:
        """Send a signal to the ranks of a step; one that has ended is no error."""
        with contextlib.suppress(SlurmError):
            answer(["scancel", f"--signal={signal_name}", f"{self.job}.{step}"])


def ended_tasks(srun_errors: str) -> list[tuple[str, str, str]]:
    """Host, tasks and reason of each task that srun reports as ended badly: ``srun: error: node2: task 1: Killed``."""
    return [
        (found["host"], found["tasks"], found["how"].strip()) for found in _TASK_ENDED.finditer(srun_errors)
    ]


def _seconds_until(end: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(end).timestamp() - datetime.datetime.now().timestamp()
    except ValueError:  # Unknown, N/A: no limit
        return None
