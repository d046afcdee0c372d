"""The real trainer on a real SLURM of several hosts: whatever happens, the run ends by itself, with the same losses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_lab import Lab
from training_run import Losses, TrainingRun

from megatron_salamandra.cluster import ControlFiles, RoundBook
from megatron_salamandra.run_directory import latest_checkpoint

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Note = Callable[[str, TrainingRun, float], None]


def test_the_signal_before_the_time_limit_twice_and_while_a_save_runs(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note
) -> None:
    saves = ("checkpoint.every_steps=1", "checkpoint.keep_last=2", "checkpoint.asynchronous=true")
    run = TrainingRun(lab, blend, tmp_path / "run", *saves)
    for step, number in ((9, 1), (25, 2)):
        run.wait_for_step(step)
        fault = time.time()
        lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
        run.wait_for_round(number + 1)
    note("signal before the time limit", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "stopped", "done"]
    assert run.losses() == undisturbed


def test_the_signal_with_saves_that_training_waits_for(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses
) -> None:
    run = TrainingRun(
        lab, blend, tmp_path / "run", "checkpoint.asynchronous=false", "checkpoint.every_steps=2"
    )
    run.wait_for_step(12)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.losses() == undisturbed


def test_a_killed_rank(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    lab.on("node2", "kill", "-KILL", str(run.rank_of("node2")))
    note("a rank is killed", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.losses() == undisturbed
    assert lab.field(run.job, "Restarts") == "0"


def test_a_frozen_rank(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "hangs.step_seconds=30")
    run.wait_for_step(13)
    fault = time.time()
    lab.on("node2", "kill", "-STOP", str(run.rank_of("node2")))
    note("a rank is frozen", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["hang", "done"]
    assert run.losses() == undisturbed
    assert "rank 1 on node2: no sign of life for" in run.text()
    failure = RoundBook(run.directory.path).read()[0].outcome.failure
    assert failure is not None and (failure.rank, failure.host) == (1, "node2")


def test_preemption(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", sbatch=("--partition=low",))
    run.wait_for_step(3)
    other = tmp_path / "other.sh"
    other.write_text("#!/bin/bash\nsleep 2\n")
    fault = time.time()
    lab.submit(other, "--partition=main", "--nodes=3", "--exclusive", f"--output={tmp_path}/other.log")
    note("preemption", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["preempted", "done"]
    assert run.losses() == undisturbed


def test_scontrol_requeue(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    lab.on("ctl", "scontrol", "requeue", run.job)
    note("scontrol requeue", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() in (["preempted", "done"], ["lost", "done"])
    assert run.losses() == undisturbed


@pytest.mark.parametrize("host", ["node2", "node1"])
def test_a_host_is_gone(
    whole_lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note, host: str
) -> None:
    run = TrainingRun(whole_lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    whole_lab.call("off", host)
    note(f"power of {'the batch host' if host == 'node1' else 'a node'} gone", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == (["node", "done"] if host == "node2" else ["lost", "done"])
    assert run.losses() == undisturbed


@pytest.mark.parametrize("host", ["node2", "node1"])
def test_a_link_is_cut_and_comes_back(
    whole_lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note, host: str
) -> None:
    """The rank that was cut off lives on, and must not write into the next round."""
    run = TrainingRun(whole_lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    whole_lab.call("link", host, "down")
    run.wait_for_round(2)
    with contextlib.suppress(AssertionError):  # it may have ended already
        whole_lab.call("link", host, "up")
    note(f"link of {'the batch host' if host == 'node1' else 'a node'} cut", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    assert run.losses() == undisturbed


def test_two_jobs_of_one_run(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(5)
    rank = str(run.rank_of("node2"))
    lab.on("node2", "kill", "-STOP", rank)  # or it could be done before the second job starts
    second = TrainingRun(lab, blend, tmp_path / "run")
    assert second.end() == "FAILED"
    lab.on("node2", "kill", "-CONT", rank)
    assert lab.field(second.job, "ExitCode") == "2:0"
    assert "is being used by process" in run.text()
    assert f"job {run.job}" in run.text()
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    assert run.losses() == undisturbed


@pytest.mark.parametrize("lab", ["cgroup"], indirect=True)
def test_a_team_mate_stops_the_run_and_it_stays_stopped(lab: Lab, blend: Path, tmp_path: Path) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "training.steps=100000")
    run.wait_for_step(5)
    ControlFiles(run.directory.path).ask("stop", "the queue is full")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["requested"]
    assert latest_checkpoint(run.directory.checkpoints) is not None


@pytest.mark.parametrize("lab", ["cgroup"], indirect=True)
def test_a_wrong_configuration_ends_before_a_rank_is_started(lab: Lab, blend: Path, tmp_path: Path) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "training.stepz=3")
    assert run.end() == "FAILED"
    assert lab.field(run.job, "ExitCode") == "2:0"
    assert "did you mean training.steps" in run.text()
    assert "srun" not in run.text()
