"""The supervisor on a real SLURM of several hosts: a run comes to its end by itself, whatever happens to a round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from slurm_lab import Lab
from supervised_run import SupervisedRun

from megatron_salamandra.cluster import ControlFiles

pytestmark = pytest.mark.cluster


def test_an_undisturbed_run_is_one_round(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 10")
    assert run.end() == "COMPLETED", run.text()
    assert (run.causes(), run.steps()) == (["done"], list(range(1, 11)))


def test_the_signal_before_the_time_limit_saves_and_the_job_comes_back(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 60 --save-every 1000")
    run.wait_for_step(5)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.steps() == list(range(1, 61))  # no step was lost or done twice
    assert lab.field(run.job, "Restarts") == "1"


@pytest.mark.parametrize(("fault", "code"), [("crash", 1), ("kill", 137)])
def test_a_crash_is_restarted_inside_the_allocation(lab: Lab, tmp_path: Path, fault: str, code: int) -> None:
    run = SupervisedRun(lab, tmp_path, f"--steps 30 --fault {fault}@12")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert lab.field(run.job, "Restarts") == "0"
    failure = json.loads((run.directory / "rounds.jsonl").read_text().splitlines()[0])["outcome"]["failure"]
    assert (failure["rank"], failure["host"], failure["code"]) == (1, "node2", code) or failure[
        "host"
    ] != "node1"


def test_a_frozen_rank_is_noticed_and_the_run_goes_on(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --fault freeze@12")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["hang", "done"]
    failure = run.rounds()[0]["outcome"]["failure"]
    assert (failure["rank"], failure["host"]) == (1, "node2")
    assert "rank 1 on node2: no sign of life for" in run.text()
    assert "1 other rank waits in reduce of step 12" in run.text()
    stacks = run.directory / "control/round-0001/stacks"
    assert "stand_in_training.py" in (stacks / "rank-00000.txt").read_text()


def test_the_place_of_a_host_that_held_up_the_others_is_taken_by_the_spare_one(
    lab: Lab, tmp_path: Path
) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --fault freeze@12", allocated=3)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["hang", "done"]
    assert [entry["hosts"] for entry in run.rounds()] == [["node1", "node2"], ["node1", "node3"]]


def test_a_wrong_configuration_ends_with_its_own_code_and_message(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --fault configuration@1")
    assert run.end() == "FAILED"
    assert lab.field(run.job, "ExitCode") == "2:0"
    assert "parallel.tensor = 3" in run.text()


def test_a_run_that_crashes_at_its_first_step_ends_after_its_patience(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 30 --save-every 1000 --fault crash@3:0")
    assert run.end() == "FAILED"
    assert run.causes() == ["crash"] * 4
    assert "4 rounds in a row without progress" in run.text()


def test_a_cancelled_run_stays_cancelled(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 600")
    run.wait_for_step(5)
    lab.on("ctl", "scancel", run.job)
    assert run.end() == "CANCELLED"
    assert run.causes() == ["cancelled"]
    run.assert_nothing_left()


def test_a_host_without_power_is_replaced_by_the_spare_one(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 60", allocated=3)
    run.wait_for_step(8)
    lab.call("off", "node2")
    try:
        assert run.end() == "COMPLETED", run.text()
        assert run.causes() == ["node", "done"]
        assert lab.field(run.job, "Restarts") == "0"
    finally:
        lab.call("on", "node2")
        lab.wait_for_idle()


def test_a_person_stops_a_run_and_it_does_not_come_back(lab: Lab, tmp_path: Path) -> None:
    run = SupervisedRun(lab, tmp_path, "--steps 600 --save-every 1000")
    run.wait_for_step(5)
    ControlFiles(run.directory).ask("stop", "lunch")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["requested"]
    assert run.last_saved() == run.steps()[-1] < 600
