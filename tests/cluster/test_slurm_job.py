"""What the supervisor calls its job when it talks to SLURM."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from megatron_salamandra.cluster import SlurmJob, slurm
from megatron_salamandra.cluster.slurm_command import SlurmError

ENVIRONMENT = {"SLURM_JOB_ID": "40", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Commands of SLURM, answered by the names of two nodes."""
    commands: list[Sequence[str]] = []

    def answer(command: Sequence[str]) -> str:
        commands.append(command)
        return "node1\nnode2\n"

    monkeypatch.setattr(slurm, "answer", answer)
    return commands


def test_a_job_is_called_by_its_number(asked: list[Sequence[str]]) -> None:
    job = SlurmJob.current(ENVIRONMENT)
    assert (job.job, job.nodes, job.tasks_per_node) == ("40", ("node1", "node2"), 2)
    job.requeue()
    assert asked[-1] == ["scontrol", "requeue", "40"]


@pytest.mark.parametrize(
    ("variable", "says", "restarts"), [("2", 0, 0), ("2", 2, 2), ("1", None, 1), ("0", 0, 0)]
)
def test_a_restart_count_of_the_job_that_submitted_this_one_is_not_taken_over(
    monkeypatch: pytest.MonkeyPatch, variable: str, says: int | None, restarts: int
) -> None:
    """sbatch hands the variables of the shell on, those of an outer job too."""

    def answer(command: Sequence[str]) -> str:
        if "job" not in command:
            return "node1\nnode2\n"
        if says is None:
            raise SlurmError("away")
        return f"JobState=RUNNING Restarts={says}"

    monkeypatch.setattr(slurm, "answer", answer)
    assert SlurmJob.current({**ENVIRONMENT, "SLURM_RESTART_COUNT": variable}).restarts == restarts


def test_an_element_of_a_job_array_never_speaks_for_all_of_them(asked: list[Sequence[str]]) -> None:
    """The first element's number is the array's."""
    job = SlurmJob.current({**ENVIRONMENT, "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "0"})
    assert job.job == "40"
    job.requeue()
    job.fields()
    job.exclude(["node2"])
    job.end_steps(but="")
    assert all("40" not in command and "JobId=40" not in command for command in asked)
    assert asked[1:3] == [["scontrol", "requeue", "40_0"], ["scontrol", "show", "job", "40_0", "--oneliner"]]


@pytest.mark.parametrize(
    ("job", "states"),
    [
        ("JobState=RUNNING NodeList=node[1-2]", {"node1": "allocated", "node2": "idle"}),
        # It has rebooted, or came back after its link was cut: well, but of the job no more.
        ("JobState=RUNNING NodeList=node1", {"node1": "allocated", "node2": "lost"}),
        ("JobState=PENDING NodeList=(null)", {"node1": "allocated", "node2": "idle"}),
    ],
)
def test_a_node_that_slurm_took_out_of_the_job_is_lost_however_well_it_is(
    monkeypatch: pytest.MonkeyPatch, job: str, states: dict[str, str]
) -> None:
    def answer(command: Sequence[str]) -> str:
        if command[0] == "sinfo":
            return "node1 allocated\nnode2 idle\n"
        if command[2] == "job":
            return job
        return "node1\nnode2\n" if command[3] == "node[1-2]" else f"{command[3]}\n"

    monkeypatch.setattr(slurm, "answer", answer)
    found = SlurmJob("40", 0, ("node1", "node2"), 1).node_states()
    assert found == states
    assert slurm.is_lost(found["node2"]) == (states["node2"] == "lost")


@pytest.mark.parametrize(
    ("job", "asked_for", "others"),
    [
        ("Partition=main,long Reservation=(null)", ["--partition", "main,long"], 1),
        ("Partition=main", ["--partition", "main"], 1),
        ("Partition=main Reservation=mine", ["--nodes", "node[1-4]"], 1),
    ],
)
def test_other_nodes_are_those_of_partition_or_reservation_that_are_in_service(
    monkeypatch: pytest.MonkeyPatch, job: str, asked_for: list[str], others: int
) -> None:
    asked: list[Sequence[str]] = []

    def answer(command: Sequence[str]) -> str:
        asked.append(command)
        if command[0] == "sinfo":
            return "node1 allocated\nnode1 allocated\nnode2 idle\nnode3 down*\nnode4 drained\n"
        return "ReservationName=mine Nodes=node[1-4]" if command[2] == "reservation" else job

    monkeypatch.setattr(slurm, "answer", answer)
    assert SlurmJob("40", 0, ("node1", "node2"), 1).nodes_beside(["node2"]) == others
    assert [part for part in asked[-1] if part in asked_for] == asked_for


@pytest.mark.parametrize(
    ("excluded", "joined", "others"),
    [
        ("", "node2", 3),
        (" ExcNodeList=(null)", "node2", 3),
        (" ExcNodeList=node3", "node3,node2", 2),
        (" ExcNodeList=node[1-2]", "node1,node2", 2),
    ],
)
def test_nodes_that_the_user_excluded_stay_excluded_and_do_not_count(
    monkeypatch: pytest.MonkeyPatch, excluded: str, joined: str, others: int
) -> None:
    updates: list[str] = []

    def answer(command: Sequence[str]) -> str:
        if command[0] == "sinfo":
            return "".join(f"node{number} idle\n" for number in range(1, 5))
        if command[:2] == ["scontrol", "update"]:
            updates.extend(command[2:])
        if command[:3] == ["scontrol", "show", "hostnames"]:
            return "node1\nnode2\n" if command[3] == "node[1-2]" else f"{command[3]}\n"
        return f"JobId=40 Partition=main ReqNodeList=(null){excluded}"

    monkeypatch.setattr(slurm, "answer", answer)
    job = SlurmJob("40", 0, ("node1", "node2"), 1)
    assert job.nodes_beside(["node2"]) == others
    job.exclude(["node2"])
    assert updates == ["JobId=40", f"ExcNodeList={joined}"]


@pytest.mark.parametrize(
    ("job", "shown", "name"),
    [
        ("41", "JobId=41 ArrayJobId=40 ArrayTaskId=1 JobName=run", "40_1"),
        ("50", "JobId=50 JobName=run", "50"),  # submitted from inside 40_1
        ("50", "JobId=50 ArrayJobId=50 ArrayTaskId=1 JobName=run", "50"),
    ],
)
def test_variables_of_the_array_that_a_job_was_submitted_from_are_not_its_own(
    monkeypatch: pytest.MonkeyPatch, job: str, shown: str, name: str
) -> None:
    silent = ["no answer in 60 s", "Socket timed out on send/recv operation"]

    def answer(command: Sequence[str]) -> str:
        if command[2] == "hostnames":
            return "node1\nnode2\n"
        assert command == ["scontrol", "show", "job", job, "--oneliner"]
        if silent:
            raise SlurmError(silent.pop())
        return shown

    monkeypatch.setattr(slurm, "answer", answer)
    monkeypatch.setattr(slurm, "_WAITS_SECONDS", (0.0, 0.0))
    inherited = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"}
    assert SlurmJob.current({**ENVIRONMENT, "SLURM_JOB_ID": job, **inherited}).name == name


def test_a_job_whose_array_nobody_tells_is_called_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: Sequence[str]) -> str:
        if command[2] == "hostnames":
            return "node1\nnode2\n"
        raise SlurmError("Unable to contact slurm controller")

    monkeypatch.setattr(slurm, "answer", answer)
    monkeypatch.setattr(slurm, "_WAITS_SECONDS", (0.0, 0.0))
    with pytest.raises(SlurmError, match="Unable to contact"):
        SlurmJob.current({**ENVIRONMENT, "SLURM_ARRAY_JOB_ID": "39", "SLURM_ARRAY_TASK_ID": "1"})
