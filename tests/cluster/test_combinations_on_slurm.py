"""Faults that meet: what SLURM, persons and hosts do at a bad moment, on a real SLURM, with ranks without a model."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest
from slurm_lab import Lab, batch_script, wait_until
from supervised_run import SupervisedRun

from megatron_salamandra.cluster import ControlFiles

pytestmark = pytest.mark.cluster


def run_until(lab: Lab, path: Path, options: str, step: int, **more: object) -> SupervisedRun:
    run = SupervisedRun(lab, path, options, **more)  # type: ignore[arg-type]
    run.wait_for_step(step)
    return run


def other_job(lab: Lab, path: Path) -> str:
    """One that takes all nodes from jobs of the partition `low`."""
    script = path / "other.sh"
    script.write_text("#!/bin/bash\nsleep 2\n")
    return lab.submit(script, "--partition=main", "--nodes=3", "--exclusive", f"--output={path}/other.log")


@pytest.mark.parametrize(
    "signals",
    [
        ("--signal=USR1 --batch", "--signal=USR1 --batch"),
        ("--signal=USR1 --batch", "--signal=TERM --batch"),
        ("--signal=TERM --batch", "--signal=USR1 --full"),
        ("--signal=USR1 --full", "--signal=USR1 --full"),
    ],
    ids=["usr1-usr1", "usr1-term", "term-all", "all-all"],
)
def test_two_signals_in_a_row_are_one_stop(lab: Lab, tmp_path: Path, signals: tuple[str, str]) -> None:
    """While the save that follows on the first one runs."""
    run = run_until(lab, tmp_path, "--steps 60 --save-every 1000 --save-seconds 3", 12)
    for options in signals:
        lab.on("ctl", "scancel", *options.split(), run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"], run.text()
    assert run.steps() == list(range(1, 61))
    assert run.restarts() == 1
    run.assert_nothing_left()


def test_a_signal_to_the_ranks_alone_saves_and_the_job_comes_back(lab: Lab, tmp_path: Path) -> None:
    run = run_until(lab, tmp_path, "--steps 60 --save-every 1000", 12)
    lab.on("ctl", "scancel", "--signal=USR1", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"], run.text()
    assert run.steps() == list(range(1, 61))
    run.assert_nothing_left()


@pytest.mark.parametrize(("fault", "cause"), [("crash", "crash"), ("kill", "crash"), ("freeze", "hang")])
def test_a_fault_of_rank_0(lab: Lab, tmp_path: Path, fault: str, cause: str) -> None:
    """It alone beats, saves, and reads requests."""
    run = SupervisedRun(lab, tmp_path, f"--steps 30 --faulty-rank 0 --fault {fault}@12")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == [cause, "done"], run.text()
    assert run.restarts() == 0
    failure = run.rounds()[0]["outcome"]["failure"]
    assert (failure["rank"], failure["host"]) == (0, "node1"), failure
    run.assert_whole(30)


def test_all_ranks_are_killed_in_the_same_moment(lab: Lab, tmp_path: Path) -> None:
    run = run_until(lab, tmp_path, "--steps 60", 12)
    for host in ("node1", "node2"):
        with contextlib.suppress(AssertionError):  # srun was faster
            lab.call("kill", host, f"stand_in_training.py {run.directory}")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    run.assert_whole(60)


def test_a_step_that_somebody_cancels(lab: Lab, tmp_path: Path) -> None:
    """But not the job."""
    run = run_until(lab, tmp_path, "--steps 60", 12)
    steps = lab.on(
        "ctl", "squeue", "--noheader", "--steps", "--jobs", run.job, "--format", "%i %j"
    ).splitlines()
    (ranks,) = (line.split()[0] for line in steps if "sentinel" not in line and line.split()[0][-1].isdigit())
    lab.on("ctl", "scancel", ranks)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.restarts() == 0
    run.assert_whole(60)


def test_a_host_dies_while_the_ranks_save_before_the_time_limit(whole_lab: Lab, tmp_path: Path) -> None:
    run = run_until(whole_lab, tmp_path, "--steps 80 --save-every 5 --save-seconds 4", 12)
    whole_lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    run.wait_for_text("asking the ranks to save and stop")
    whole_lab.call("off", "node2")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes()[-1] == "done" and run.restarts() == 1, run.text()
    run.assert_whole(80)


def test_the_batch_host_dies_while_the_ranks_save_before_the_time_limit(
    whole_lab: Lab, tmp_path: Path
) -> None:
    run = run_until(whole_lab, tmp_path, "--steps 80 --save-every 5 --save-seconds 4", 12)
    whole_lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    run.wait_for_text("asking the ranks to save and stop")
    whole_lab.call("off", "node1")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes() == ["lost", "done"], run.text()
    run.assert_whole(80)


@pytest.mark.parametrize(("host", "allocated"), [("node1", 2), ("node2", 2), ("node2", 3)])
def test_an_administrator_takes_a_node_down(
    whole_lab: Lab, tmp_path: Path, host: str, allocated: int
) -> None:
    run = run_until(whole_lab, tmp_path, "--steps 150", 12, allocated=allocated)
    whole_lab.on("ctl", "scontrol", "update", f"NodeName={host}", "State=DOWN", "Reason=test")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    assert host not in run.rounds()[-1]["hosts"]
    run.assert_whole(150)


def test_a_job_that_needs_all_nodes_of_the_cluster_waits_for_the_one_that_is_gone(
    whole_lab: Lab, tmp_path: Path
) -> None:
    run = run_until(whole_lab, tmp_path, "--steps 60", 12, nodes=3, allocated=3)
    whole_lab.call("off", "node2")
    wait_until(lambda: run.causes() == ["node"], 120, run.text)
    wait_until(lambda: whole_lab.field(run.job, "JobState") == "PENDING", 60, run.text)
    whole_lab.call("on", "node2")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes() == ["node", "done"]
    assert "node2 may be taken again: the job needs 3 nodes, and there are 2 others" in run.text()
    run.assert_whole(60)


@pytest.mark.parametrize("host", ["node1", "node2"])
@pytest.mark.parametrize("spare", [False, True], ids=["no-spare", "spare"])
def test_a_host_reboots_faster_than_slurm_gives_it_up(
    whole_lab: Lab, tmp_path: Path, host: str, spare: bool
) -> None:
    """It is back and well at once, but the job's processes there are gone."""
    run = run_until(whole_lab, tmp_path, "--steps 100", 12, allocated=3 if spare else 2)
    whole_lab.call("off", host)
    whole_lab.call("on", host)
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    run.assert_whole(100)


def test_preemption_while_ranks_start(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --start-seconds 90", more=("--partition=low",))
    run.wait_for_text("round 1: ")
    other_job(lab, tmp_path)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes()[-1] == "done" and run.restarts() == 1, run.text()
    run.assert_whole(30)


def test_the_time_limit_is_reached_while_ranks_start(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --start-seconds 600", more=("--time=1",))
    wait_until(lambda: len(run.rounds()) > 0, 240, run.text)
    assert run.causes()[0] in ("limit", "stopped"), run.text()
    wait_until(lambda: lab.field(run.job, "JobState") == "PENDING", 60, run.text)
    lab.on("ctl", "scontrol", "update", f"JobId={run.job}", "TimeLimit=30")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes()[1:] == ["done"]
    run.assert_whole(30)


def fill(disk: Path) -> Path:
    """A file that takes what is left of a disk."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(256))
    return filler


def test_the_time_limit_is_near_while_the_disk_is_full(lab: Lab, tmp_path: Path) -> None:
    """Neither the request to stop nor the last save can be written."""
    place = lab.small_disk / "full"
    place.mkdir(exist_ok=True)
    run = run_until(lab, tmp_path, "--steps 100 --save-every 1000", 12, directory=place, name=tmp_path.name)
    filler = fill(lab.small_disk)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    try:
        wait_until(lambda: run.restarts() == 1, 90, run.text)
    finally:
        filler.unlink()
    assert run.end() == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    run.assert_whole(100)


def test_a_job_that_is_requeued_and_held_goes_on_when_it_is_released(lab: Lab, tmp_path: Path) -> None:
    run = run_until(lab, tmp_path, "--steps 60", 12)
    lab.on("ctl", "scontrol", "requeuehold", run.job)
    wait_until(lambda: lab.field(run.job, "JobState") in ("PENDING", "SPECIAL_EXIT"), 60, run.text)
    run.assert_nothing_left()
    lab.on("ctl", "scontrol", "release", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["preempted", "done"]
    run.assert_whole(60)


def test_a_job_that_waits_in_the_queue_again_can_be_cancelled(lab: Lab, tmp_path: Path) -> None:
    run = run_until(lab, tmp_path, "--steps 600", 12)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    wait_until(lambda: lab.field(run.job, "JobState") == "PENDING", 60, run.text)
    lab.on("ctl", "scancel", run.job)
    assert run.end() == "CANCELLED", run.text()
    run.assert_nothing_left()


def test_a_job_that_is_cancelled_while_ranks_start_stays_cancelled(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --start-seconds 60")
    run.wait_for_text("round 1: ")
    lab.on("ctl", "scancel", run.job)
    assert run.end() == "CANCELLED", run.text()
    assert run.causes() == ["cancelled"]
    run.assert_nothing_left()


def test_the_signal_while_a_round_waits_for_the_next(lab: Lab, tmp_path: Path) -> None:
    more = ("--export=ALL,SALAMANDRA_LAB_WAIT=600",)
    run = SupervisedRun(lab, tmp_path, "--steps 30 --save-every 1000 --fault crash@3", more=more)
    run.wait_for_text("waiting 600 s")
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.restarts() == 1
    run.assert_whole(30)


@pytest.mark.parametrize("how", ["scancel", "stop", "requeue"])
def test_what_a_person_wants_while_a_round_waits_for_the_next(lab: Lab, tmp_path: Path, how: str) -> None:
    more = ("--export=ALL,SALAMANDRA_LAB_WAIT=600",)
    run = SupervisedRun(lab, tmp_path, "--steps 30 --save-every 1000 --fault crash@3", more=more)
    run.wait_for_text("waiting 600 s")
    if how == "scancel":
        lab.on("ctl", "scancel", run.job)
        assert run.end() == "CANCELLED", run.text()
    elif how == "stop":
        ControlFiles(run.directory).ask("stop", "lunch")
        assert run.end() == "COMPLETED", run.text()
        assert run.causes() == ["crash", "requested"]
    else:
        lab.on("ctl", "scontrol", "requeue", run.job)
        assert run.end() == "COMPLETED", run.text()
        assert run.causes() == ["crash", "done"]
    run.assert_nothing_left()


def test_a_suspended_job_is_asked_to_stop_and_stops_once_it_is_resumed(lab: Lab, tmp_path: Path) -> None:
    run = run_until(lab, tmp_path, "--steps 60", 12)
    lab.on("ctl", "scontrol", "suspend", run.job)
    wait_until(lambda: lab.field(run.job, "JobState") == "SUSPENDED", 30)
    ControlFiles(run.directory).ask("stop", "lunch")
    lab.on("ctl", "scontrol", "resume", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["requested"]
    run.assert_nothing_left()


@pytest.mark.parametrize("before", ["suspended", "killed"])
def test_the_batch_host_dies_long_after_something_happened_to_its_sentinel(
    whole_lab: Lab, tmp_path: Path, before: str
) -> None:
    run = run_until(whole_lab, tmp_path, "--steps 400", 12)
    sentinel = f"cluster.sentinel {run.job} "
    if before == "suspended":
        whole_lab.on("ctl", "scontrol", "suspend", run.job)
        wait_until(lambda: whole_lab.field(run.job, "JobState") == "SUSPENDED", 30)
        whole_lab.on("ctl", "scontrol", "resume", run.job)
    else:
        whole_lab.call("kill", "node2", sentinel)
    run.wait_for_step(run.steps()[-1] + 40)
    wait_until(lambda: whole_lab.runs("node2", sentinel), 60, run.text)
    whole_lab.call("off", "node1")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes() == ["lost", "done"]
    run.assert_whole(400)


def test_elements_of_a_job_array_are_jobs_of_their_own(lab: Lab, tmp_path: Path) -> None:
    """The number of its first element is that of the whole array."""
    program = shlex.quote(str(Path(__file__).parent / "supervise_stand_in.py"))
    script = batch_script(
        tmp_path / "array.sh",
        f'{program} "{tmp_path}/run-$SLURM_ARRAY_TASK_ID" 1 --steps 60',
        tmp_path / "job-%a.log",
        *(
            "--nodes=1",
            "--ntasks-per-node=1",
            "--cpus-per-task=1",
            "--no-kill",
            "--requeue",
            "--time=0:30:00",
        ),
    )
    for index in (0, 1):
        (tmp_path / f"run-{index}").mkdir()
    array = lab.submit(script, "--array=0-1")
    runs = [
        SupervisedRun.submitted(
            lab, f"{array}_{index}", tmp_path / f"run-{index}", tmp_path / f"job-{index}.log", script
        )
        for index in (0, 1)
    ]
    for run in runs:
        run.wait_for_step(12)
    for index in (0, 1):  # each for itself, and the other one trains on
        lab.on("ctl", "scancel", "--signal=USR1", "--batch", f"{array}_{index}")
    for run in runs:
        assert run.end() == "COMPLETED", run.text()
        assert run.causes() == ["stopped", "done"], run.text()
        assert run.restarts() == 1
        run.assert_whole(60)


def test_the_controller_is_told_to_read_its_configuration_again(lab: Lab, tmp_path: Path) -> None:
    run = run_until(lab, tmp_path, "--steps 60", 12)
    lab.on("ctl", "scontrol", "reconfigure")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    run.assert_whole(60)
