"""What happens to clusters, on a real SLURM: nodes, network and controller fail, and the run comes to its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_lab import Lab, wait_until
from supervised_run import SupervisedRun

from megatron_salamandra.cluster import ControlFiles

pytestmark = pytest.mark.cluster

Note = Callable[[str, SupervisedRun, float], None]


def run_until(lab: Lab, path: Path, options: str, step: int, **more: object) -> tuple[SupervisedRun, float]:
    """A run that has done a step, and the moment of the fault that follows."""
    run = SupervisedRun(lab, path, options, **more)  # type: ignore[arg-type]
    run.wait_for_step(step)
    return run, time.time()


def test_scontrol_requeue(lab: Lab, tmp_path: Path, note: Note) -> None:
    run, fault = run_until(lab, tmp_path, "--steps 60", 12)
    lab.on("ctl", "scontrol", "requeue", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["preempted", "done"]
    assert run.restarts() == 1
    run.assert_whole(60)
    note("scontrol requeue", run, fault)


@pytest.mark.parametrize("signal", ["--signal=B:USR1@60", "--signal=USR1@60", "--comment=none"])
def test_preemption(lab: Lab, tmp_path: Path, note: Note, signal: str) -> None:
    """With a grace time; the signal before it goes to the batch shell, to the ranks, or is SIGTERM."""
    run, fault = run_until(lab, tmp_path, "--steps 80", 12, more=("--partition=low", signal))
    other = tmp_path / "other.sh"
    other.write_text("#!/bin/bash\nsleep 2\n")
    lab.submit(other, "--partition=main", "--nodes=3", "--exclusive", f"--output={tmp_path}/other.log")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() in (["preempted", "done"], ["stopped", "done"])
    assert run.restarts() == 1
    run.assert_whole(80)
    note("preemption", run, fault)


@pytest.mark.parametrize("host", ["node1", "node2"])
def test_the_daemon_of_a_ranks_step_is_killed(whole_lab: Lab, tmp_path: Path, note: Note, host: str) -> None:
    run, fault = run_until(whole_lab, tmp_path, "--steps 40", 12)
    # Of every step there, so of the sentinel's as well where there is one.
    whole_lab.call("kill", host, rf"slurmstepd: \[{run.job}\.[0-9]+\]")
    assert run.end() == "COMPLETED", run.text()
    run.assert_whole(40)
    if len(run.causes()) > 1:
        note("slurmstepd killed", run, fault)


@pytest.mark.parametrize(("host", "restarts"), [("node2", 0), ("node1", 1)])
def test_slurmd_is_killed(whole_lab: Lab, tmp_path: Path, note: Note, host: str, restarts: int) -> None:
    run, fault = run_until(whole_lab, tmp_path, "--steps 300", 12, allocated=3 if host == "node2" else 2)
    whole_lab.call("kill", host, "slurmd -D")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.restarts() == restarts
    assert run.causes()[-1] == "done"
    run.assert_whole(300)
    note(f"slurmd killed on {'the batch host' if restarts else 'a node'}", run, fault)


@pytest.mark.parametrize(("host", "restarts"), [("node2", 0), ("node1", 1)])
def test_a_host_is_gone(whole_lab: Lab, tmp_path: Path, note: Note, host: str, restarts: int) -> None:
    run, fault = run_until(whole_lab, tmp_path, "--steps 80", 12, allocated=3 if host == "node2" else 2)
    whole_lab.call("off", host)
    assert run.end(240) == "COMPLETED", run.text()
    assert run.restarts() == restarts
    assert run.causes() == (["lost", "done"] if restarts else ["node", "done"])
    run.assert_whole(80)
    note(f"power of {'the batch host' if restarts else 'a node'} gone", run, fault)


def test_a_host_is_gone_and_there_is_no_spare_one(whole_lab: Lab, tmp_path: Path, note: Note) -> None:
    run, fault = run_until(whole_lab, tmp_path, "--steps 80", 12)
    whole_lab.call("off", "node2")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes() == ["node", "done"]
    assert run.restarts() == 1
    run.assert_whole(80)
    note("power of a node gone, no spare", run, fault)


@pytest.mark.parametrize("host", ["node2", "node1"])
def test_a_link_is_cut_and_comes_back(whole_lab: Lab, tmp_path: Path, note: Note, host: str) -> None:
    run, fault = run_until(whole_lab, tmp_path, "--steps 300", 12)
    whole_lab.call("link", host, "down")
    wait_until(lambda: any(line["round"] > 1 for line in run.metrics()), 120, run.text)
    whole_lab.call("link", host, "up")
    assert run.end(240) == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    run.assert_whole(300)
    note(f"link of {'the batch host' if host == 'node1' else 'a node'} cut", run, fault)


def test_a_link_is_away_for_a_moment(whole_lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(whole_lab, tmp_path, "--steps 80", 12)
    whole_lab.call("link", "node2", "down")
    reached = run.steps()[-1]
    run.wait_for_step(reached + 15)
    whole_lab.call("link", "node2", "up")
    assert run.end() == "COMPLETED", run.text()
    run.assert_whole(80)


def test_the_controller_is_away(whole_lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(whole_lab, tmp_path, "--steps 200", 12)
    whole_lab.kill_controller(run.job)
    run.wait_for_step(run.steps()[-1] + 40)
    whole_lab.call("daemon", "ctl")
    wait_until(whole_lab.controller_answers, 60)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    run.assert_whole(200)


def test_a_rank_crashes_while_the_controller_is_away(whole_lab: Lab, tmp_path: Path, note: Note) -> None:
    run, _ = run_until(whole_lab, tmp_path, "--steps 250 --fault crash@200", 12)
    whole_lab.kill_controller(run.job)
    run.wait_for_text("SLURM does not answer")
    whole_lab.call("daemon", "ctl")
    fault = time.time()
    wait_until(whole_lab.controller_answers, 60)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.restarts() == 0
    run.assert_whole(250)
    note("crash while slurmctld is away, from its return on", run, fault)


def test_the_job_wants_back_into_the_queue_while_the_controller_is_away(
    whole_lab: Lab, tmp_path: Path, note: Note
) -> None:
    run, _ = run_until(whole_lab, tmp_path, "--steps 400", 12)
    whole_lab.kill_controller(run.job)
    whole_lab.on("node1", "pkill", "-USR1", "--full", f"supervise_stand_in.py {run.directory}")
    run.wait_for_text("could not go back into the queue yet")
    fault = time.time()
    whole_lab.call("daemon", "ctl")
    wait_until(whole_lab.controller_answers, 60)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.restarts() == 1
    run.assert_whole(400)
    note("requeue while slurmctld is away, from its return on", run, fault)


def test_the_supervisor_is_killed_and_the_same_command_goes_on(lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(lab, tmp_path, "--steps 100", 12)
    lab.call("kill", "node1", f"supervise_stand_in.py {run.directory}")
    assert run.end() == "FAILED"
    run.assert_nothing_left()
    again = SupervisedRun(lab, tmp_path, "--steps 100")
    assert again.end() == "COMPLETED", again.text()
    assert again.causes() == ["lost", "done"]
    again.assert_whole(100)


def test_srun_is_killed(lab: Lab, tmp_path: Path, note: Note) -> None:
    run, fault = run_until(lab, tmp_path, "--steps 60", 12)
    lab.call("kill", "node1", f"^srun .*{run.directory}")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    run.assert_whole(60)
    note("srun killed", run, fault)


def test_a_second_job_of_a_run_is_refused_and_the_first_goes_on(lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(lab, tmp_path, "--steps 120", 12)
    second = SupervisedRun(lab, tmp_path, "--steps 120")
    assert second.end() == "FAILED"
    assert lab.field(second.job, "ExitCode") == "2:0"
    assert f"run_dir = {run.directory} is being used by process" in second.text()
    assert "on node1 since" in second.text() and f"job {run.job}\n" in second.text()
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    run.assert_whole(120)


def test_a_suspended_job_is_not_taken_for_hung(lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(lab, tmp_path, "--steps 60", 12)
    lab.on("ctl", "scontrol", "suspend", run.job)
    wait_until(lambda: lab.field(run.job, "JobState") == "SUSPENDED", 30)
    reached = run.steps()[-1]
    end = time.monotonic() + 12  # beyond the 8 s after which a silent round counts as hung
    wait_until(lambda: time.monotonic() > end, 60)
    assert run.steps()[-1] <= reached + 1
    lab.on("ctl", "scontrol", "resume", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    run.assert_whole(60)


def test_a_drained_node_gives_way_to_the_spare_one_after_a_crash(whole_lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(whole_lab, tmp_path, "--steps 60 --fault crash@30", 12, allocated=3)
    whole_lab.on("ctl", "scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=test")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert "node1" not in run.rounds()[1]["hosts"] or "node2" not in run.rounds()[1]["hosts"]
    run.assert_whole(60)


def test_a_drained_node_is_left_with_the_next_allocation(whole_lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(whole_lab, tmp_path, "--steps 60 --fault crash@30", 12)
    whole_lab.on("ctl", "scontrol", "update", "NodeName=node2", "State=DRAIN", "Reason=test")
    assert run.end() == "COMPLETED", run.text()
    assert run.restarts() == 1
    assert run.rounds()[-1]["hosts"] == ["node1", "node3"]
    run.assert_whole(60)


def test_a_job_that_is_shorter_than_the_signals_lead_trains_until_the_clock_says_so(
    lab: Lab, tmp_path: Path
) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 60", more=("--time=1", "--signal=B:USR1@900"))
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    run.assert_whole(60)


def test_a_time_limit_that_is_moved_is_kept(lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(lab, tmp_path, "--steps 900", 12, more=("--time=10",))
    lab.on("ctl", "scontrol", "update", f"JobId={run.job}", "TimeLimit=1")
    wait_until(lambda: len(run.rounds()) > 0, 120, run.text)
    assert run.causes() == ["stopped"]
    wait_until(lambda: lab.field(run.job, "JobState") == "PENDING", 60)
    lab.on("ctl", "scontrol", "update", f"JobId={run.job}", "TimeLimit=30")
    assert run.end(300) == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    run.assert_whole(900)


def test_ranks_that_do_not_stop_are_killed_at_the_limit_and_the_job_comes_back(
    lab: Lab, tmp_path: Path
) -> None:
    run, _ = run_until(lab, tmp_path, "--steps 1000 --deaf", 12, more=("--time=1",))
    wait_until(lambda: len(run.rounds()) > 0, 150, run.text)
    wait_until(lambda: lab.field(run.job, "JobState") == "PENDING", 60, run.text)
    lab.on("ctl", "scontrol", "update", f"JobId={run.job}", "TimeLimit=30")
    assert run.end(300) == "COMPLETED", run.text()
    assert run.causes() == ["limit", "done"]
    run.assert_whole(1000)


def test_rounds_that_crash_at_one_step_after_the_other(lab: Lab, tmp_path: Path) -> None:
    faults = " ".join(
        f"--fault {kind}@{step}:{number}"
        for number, (kind, step) in enumerate([("crash", 8), ("kill", 17), ("crash", 31), ("freeze", 44)], 1)
    )
    run = SupervisedRun(lab, tmp_path, f"--steps 60 {faults}")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "crash", "crash", "hang", "done"]
    run.assert_whole(60)


def test_the_disk_is_full_for_a_while(lab: Lab, tmp_path: Path, note: Note) -> None:
    place = lab.small_disk / "full"
    place.mkdir()
    run = SupervisedRun(lab, tmp_path, "--steps 60", directory=place)
    run.wait_for_step(12)
    filler = lab.small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(512))
    run.wait_for_text("round 1 ended: crash")
    fault = time.time()
    filler.unlink()
    assert run.end() == "COMPLETED", run.text()
    run.assert_whole(60)
    note("disk full, from the moment on when there is room", run, fault)


def test_paths_with_spaces(lab: Lab, tmp_path: Path) -> None:
    place = tmp_path / "my work"
    place.mkdir()
    run = SupervisedRun(lab, place, "--steps 30 --fault kill@12", name="my run")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    run.assert_whole(30)


def test_a_stop_while_the_job_waits_in_the_queue_is_followed(lab: Lab, tmp_path: Path) -> None:
    run, _ = run_until(lab, tmp_path, "--steps 600", 12)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    wait_until(lambda: lab.field(run.job, "JobState") == "PENDING", 60, run.text)
    ControlFiles(run.directory).ask("stop", "no more hours")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "requested"]
    assert "not started: asked to stop by" in run.text()
    run.assert_nothing_left()


def test_a_persons_stop_outlives_a_crash(lab: Lab, tmp_path: Path) -> None:
    """Nobody followed it, because the ranks died first."""
    run, _ = run_until(lab, tmp_path, "--steps 600 --deaf", 12)
    ControlFiles(run.directory).ask("stop", "lunch")
    lab.call("kill", "node2", f"stand_in_training.py {run.directory}")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "requested"]


def test_jobs_that_wait_for_each_other_go_on_with_one_run(lab: Lab, tmp_path: Path) -> None:
    """As with --dependency=singleton, where a site forbids requeueing."""
    links = [
        SupervisedRun(
            lab, tmp_path, "--steps 60", more=("--job-name=chain", "--dependency=singleton", "--no-requeue")
        )
        for _ in range(3)
    ]
    links[0].wait_for_step(12)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", links[0].job)
    assert [link.end(240) for link in links] == ["FAILED", "COMPLETED", "COMPLETED"], links[1].text()
    assert "submit the same command again" in links[0].text()
    assert links[0].causes() == ["stopped", "done"]
    assert "nothing to do" in links[2].text()
    links[0].assert_whole(60)


def test_the_signal_while_ranks_start(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30")
    run.wait_for_text("round 1: ")
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    assert run.restarts() == 1
    run.assert_whole(30)
