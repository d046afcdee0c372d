"""What the supervisor asks of SLURM, through its commands."""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from megatron_salamandra.cluster.slurm_command import SlurmError, answer
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE

_LOST = "lost"
_FIELD = re.compile(r"(\w+)=(\S*)")
_REFUSED = re.compile(r"disabled|denied|not permitted|Invalid job id|permission", re.IGNORECASE)
_WAITS_SECONDS = (5.0, 10.0, 30.0, 60.0)
_TASK_ENDED = re.compile(r"srun: error: (?P<host>[\w.-]+): tasks? (?P<tasks>[\d,\[\]-]+): (?P<how>.+)")


class NoJob(SlurmError):
    """The command was started outside of a SLURM job."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class JobNow:
    """A job at one moment.

    Attributes:
        state, reason: SLURM's words: RUNNING, COMPLETING, ...; TimeLimit, None, ...
        restarts: how often it was put back into the queue; grows as soon as that is decided.
        preempted: whether its nodes are being taken back.
        submitted: seconds since 1970.
        end: of its time limit, seconds since 1970; None without a limit. True only while the job lives.
        limit_seconds: the whole of its time limit; None without one.
        may_requeue: whether the site and the job's options let it go back into the queue.
    """

    state: str
    reason: str
    restarts: int
    preempted: bool
    submitted: float | None
    end: float | None
    limit_seconds: float | None
    may_requeue: bool

    @property
    def lives(self) -> bool:
        """Whether its ranks may run, now or once it is resumed."""
        return self.state in ("RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING")

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> JobNow:
        """From ``NAME=VALUE`` of ``scontrol show job``."""
        end, submitted = _moment(fields.get("EndTime", "")), _moment(fields.get("SubmitTime", ""))
        started, taken = _moment(fields.get("StartTime", "")), _moment(fields.get("PreemptTime", ""))
        return cls(
            state=fields.get("JobState", "RUNNING"),
            reason=fields.get("Reason", ""),
            restarts=int(fields.get("Restarts", "0")),
            # SLURM keeps the moment of an earlier preemption.
            preempted=taken is not None and (started is None or taken >= started),
            submitted=submitted,
            end=end,
            limit_seconds=None if end is None or started is None else end - started,
            may_requeue=fields.get("Requeue", "1") == "1",
        )


@dataclass(frozen=True)
class SlurmJob:
    """The job that this process runs in.

    Attributes:
        job: its number, as text.
        restarts: how often SLURM has started it again.
        nodes: of the allocation.
        tasks_per_node: ranks of a node.
        array_task: what commands of SLURM call an element of a job array: the number of its first element means all of
            them. Empty for other jobs.
    """

    job: str
    restarts: int
    nodes: tuple[str, ...]
    tasks_per_node: int
    array_task: str = ""

    @property
    def name(self) -> str:
        """What commands of SLURM call it."""
        return self.array_task or self.job

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> SlurmJob:
        """The job of the environment.

        Raises:
            NoJob: there is none.
            SlurmError: ``scontrol`` cannot tell its nodes, or of which array it is.
        """
        try:
            job, nodes = environment["SLURM_JOB_ID"], environment["SLURM_JOB_NODELIST"]
        except KeyError as error:
            raise NoJob(
                f"{error.args[0]} is not set: this runs inside a SLURM job\n  submit it with sbatch"
            ) from None
        # --ntasks alone leaves it to SLURM how many tasks a node gets; without either there is one task.
        shared = environment.get("SLURM_TASKS_PER_NODE", "1") if "SLURM_NTASKS" in environment else "1"
        tasks = environment.get("SLURM_NTASKS_PER_NODE", shared)
        if "," in tasks:
            raise NoJob(
                f"nodes of the job have different numbers of tasks ({tasks})\n  use --ntasks-per-node"
            )
        names = tuple(answer(["scontrol", "show", "hostnames", nodes]).split())
        restarts = int(environment.get("SLURM_RESTART_COUNT", "0"))
        found = cls(job, restarts, names, int(tasks.split("(")[0]), _array_task(job, environment))
        if restarts:
            # The variable may be that of another job, from inside which this one was submitted.
            with suppress(SlurmError):
                return replace(found, restarts=min(restarts, found.now().restarts))
        return found

    def now(self) -> JobNow:
        """What SLURM says of the job at this moment.

        Raises:
            SlurmError: it does not answer, or has forgotten the job.
        """
        return JobNow.from_fields(self.fields())

    def fields(self) -> dict[str, str]:
        """What ``scontrol show job`` says: ``JobState``, ``EndTime``, ``NodeList``, ...

        Raises:
            SlurmError: it does not answer, or has forgotten the job.
        """
        return dict(_FIELD.findall(answer(["scontrol", "show", "job", self.name, "--oneliner"])))

    def node_states(self) -> dict[str, str]:
        """State of each node of the allocation, as ``sinfo`` has it: ``allocated``, ``draining``, ``down*``, ...

        A node that SLURM took out of the job is ``lost``, even if it is well again: a reboot takes less time than some
        rounds, but does not bring the node back into the job.

        Raises:
            SlurmError: SLURM does not answer.
        """
        lines = answer(
            ["sinfo", "--noheader", "--Node", "--nodes", ",".join(self.nodes), "--format", "%N %T"]
        )
        states = dict(line.split()[:2] for line in lines.splitlines() if len(line.split()) >= 2)
        fields = self.fields()
        left = set(self.nodes)
        if JobNow.from_fields(fields).lives and fields.get("NodeList", "(null)") != "(null)":
            left = set(answer(["scontrol", "show", "hostnames", fields["NodeList"]]).split())
        return {node: states.get(node, "unknown") if node in left else _LOST for node in self.nodes}

    def nodes_beside(self, hosts: Sequence[str]) -> int:
        """How many other nodes could take the job: of its partitions or its reservation, not excluded, and in service.

        Raises:
            SlurmError: SLURM does not answer.
        """
        fields = self.fields()
        where = ["--partition", fields.get("Partition", "")]
        if (reservation := fields.get("Reservation", "(null)")) != "(null)":
            shown = answer(["scontrol", "show", "reservation", reservation, "--oneliner"])
            where = ["--nodes", dict(_FIELD.findall(shown)).get("Nodes", "")]
        lines = answer(["sinfo", "--noheader", "--Node", *where, "--format", "%N %T"]).splitlines()
        states = dict(line.split()[:2] for line in lines if len(line.split()) >= 2)
        well = [node for node, state in states.items() if not is_lost(state) and not is_leaving(state)]
        return len(set(well).difference(hosts, self._excluded(fields)))

    def end_steps(self, *, but: str, seconds: float = 0.0) -> None:
        """Kill what is left of this job's steps, but not its batch script.

        A step outlives its srun: an srun that was killed, or a rank that was frozen, would go on beside the next round.

        Args:
            but: name of steps that stay.
            seconds: to wait for them to be gone, at most.
        Raises:
            SlurmError: SLURM does not answer.
        """
        deadline = time.monotonic() + seconds
        while True:
            lines = answer(["squeue", "--noheader", "--steps", "--jobs", self.name, "--format", "%i %j"])
            steps = [line.split() for line in lines.splitlines() if len(line.split()) > 1]
            left = [name for name, what in steps if name.rpartition(".")[2].isdecimal() and what != but]
            if left:
                answer(["scancel", *left])
            if not left or time.monotonic() > deadline:
                return
            time.sleep(1.0)

    def requeue(self) -> None:
        """Put the job back into the queue; ends this process soon.

        Raises:
            SlurmError: SLURM refuses.
        """
        answer(["scontrol", "requeue", self.name])

    def exclude(self, hosts: Sequence[str]) -> None:
        """Keep the job's next allocation away from hosts, as well as from those that it keeps away from already.

        Raises:
            SlurmError: SLURM refuses.
        """
        all_of_them = ",".join(dict.fromkeys([*self._excluded(self.fields()), *hosts]))
        answer(["scontrol", "update", f"JobId={self.name}", f"ExcNodeList={all_of_them}"])

    def _excluded(self, fields: Mapping[str, str]) -> list[str]:
        """Hosts that the user's ``--exclude`` or :meth:`exclude` named."""
        listed = fields.get("ExcNodeList", "(null)")
        return [] if listed == "(null)" else answer(["scontrol", "show", "hostnames", listed]).split()


def ended_tasks(srun_errors: str) -> list[tuple[str, str, str]]:
    """Host, tasks and reason of each task that srun reports as ended badly: ``srun: error: node2: task 1: Killed``."""
    return [
        (found["host"], found["tasks"], found["how"].strip()) for found in _TASK_ENDED.finditer(srun_errors)
    ]


def is_refused(error: SlurmError) -> bool:
    """Whether SLURM will not do this, however often it is asked; else it was busy, or away, and may have done it."""
    return _REFUSED.search(str(error)) is not None


def is_lost(state: str) -> bool:
    """Whether a node in this state does not answer, or was taken out of service or out of the job."""
    return state.endswith("*") or state.startswith(("down", "fail", "error", "unknown", _LOST))


def is_leaving(state: str) -> bool:
    """Whether a node in this state takes no new jobs: an administrator drained it, or wants to reboot it."""
    return state.rstrip("*").startswith(("drain", "maint", "reboot"))


def _array_task(job: str, environment: Mapping[str, str]) -> str:
    """``ARRAY_INDEX`` of a job that is an element of an array; empty for others.

    A job that was submitted from inside an element inherits the variables, and commands would go to that element.
    """
    array, index = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if not array or not index:
        return ""
    if array == job:
        return f"{array}_{index}"
    for wait in (*_WAITS_SECONDS, None):
        try:
            shown = dict(_FIELD.findall(answer(["scontrol", "show", "job", job, "--oneliner"])))
            break
        except SlurmError as error:
            if wait is None or is_refused(error):
                raise
            time.sleep(wait)
    return f"{array}_{index}" if (shown.get("ArrayJobId"), shown.get("ArrayTaskId")) == (array, index) else ""


def _moment(text: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:  # Unknown, N/A
        return None
