"""Stages run the same on one machine, under (a stand-in for) SLURM, and on Ray."""

from __future__ import annotations

import json
import os
from pathlib import Path

import execution_tasks
import pytest
from execution_tasks import DieSilently, WriteSquare, WriteSum
from slurm_stand_in import install_slurm_stand_in

from salamandra_data.errors import DataError
from salamandra_data.execution import (
    LocalSettings,
    RaySettings,
    SlurmSettings,
    Stage,
    run_stages,
    share,
)

TASKS = 5
PYTHONPATH = f"{Path(execution_tasks.__file__).parent}:{os.environ.get('PYTHONPATH', '')}"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM that runs jobs at once; returns the directory of their records."""
    environment, jobs = install_slurm_stand_in(tmp_path / "slurm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Tasks are processes of their own that must find the tests' functions.
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(execution_tasks.__file__).parent) + ":" + os.environ.get("PYTHONPATH", "")
    )
    return jobs


def stages(directory: Path, forbidden: int = -1) -> list[Stage]:
    directory.mkdir(exist_ok=True)
    return [
        Stage("squares", TASKS, WriteSquare(directory, forbidden)),
        Stage("sum", 1, WriteSum(directory)),
    ]


def records(jobs: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(jobs.iterdir())]


@pytest.mark.parametrize("workers", [1, 2])
def test_local_stages_run_in_order_and_once(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert run_stages(stages(out), LocalSettings(workers), tmp_path / "work").done
        assert (out / "sum").read_text() == str(sum(task * task for task in range(TASKS)))
    assert len((out / "calls").read_text().splitlines()) == TASKS


def test_a_failed_task_is_told_in_its_own_words_and_done_later(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    plan = stages(out, forbidden=3)
    (out / "obstacle").touch()
    with pytest.raises(
        DataError, match=r"is in the way of task 3\n.*squares, task 3; 2 of 5 tasks are not done"
    ):
        run_stages(plan, LocalSettings(), work)
    assert not (out / "sum").exists()
    (out / "obstacle").unlink()
    run_stages(plan, LocalSettings(), work)
    assert (out / "sum").exists()
    calls = (out / "calls").read_text().splitlines()
    assert [calls.count(f"square {task}") for task in range(TASKS)] == [1, 1, 1, 2, 1]


def test_a_killed_worker_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"(?s)2 of 2 tasks are not done.*a worker process was killed"):
        run_stages([Stage("doomed", 2, DieSilently())], LocalSettings(2), tmp_path / "work")


def test_slurm_arrays_depend_on_each_other(tmp_path: Path, slurm: Path) -> None:
    settings = SlurmSettings(
        partition="cpu",
        time="01:30:00",
        cpus_per_task=3,
        max_running=2,
        qos="debug",
        account="project",
        options={"constraint": "highmem", "exclusive": ""},
    )
    outcome = run_stages(stages(tmp_path / "out"), settings, tmp_path / "work")
    assert not outcome.done and list(outcome.jobs) == ["squares", "sum"]
    assert (tmp_path / "out" / "sum").read_text() == "30"
    first, last = (json.loads((slurm / number).read_text()) for number in outcome.jobs.values())
    assert first["given"]["array"] == "0-4%2" and first["codes"] == [0] * TASKS
    assert last["dependency"] == f"afterok:{outcome.jobs['squares']}"
    expected = {
        "partition": "cpu",
        "time": "01:30:00",
        "cpus-per-task": "3",
        "qos": "debug",
        "account": "project",
        "constraint": "highmem",
        "exclusive": "",
        "kill-on-invalid-dep": "yes",
    }
    assert expected.items() <= first["given"].items()
    assert run_stages(stages(tmp_path / "out"), settings, tmp_path / "work").done  # nothing is left to submit


def test_slurm_stage_after_a_failed_one_does_not_run_and_the_rest_can_be_submitted_again(
    tmp_path: Path, slurm: Path
) -> None:
    out, settings = tmp_path / "out", SlurmSettings(partition="cpu", time="10")
    plan = stages(out, forbidden=2)
    (out / "obstacle").touch()
    run_stages(plan, settings, tmp_path / "work")
    assert not (out / "sum").exists()
    assert "is in the way" in (tmp_path / "work/squares/failures/00002.txt").read_text()
    (out / "obstacle").unlink()
    outcome = run_stages(plan, settings, tmp_path / "work")
    assert json.loads((slurm / outcome.jobs["squares"]).read_text())["given"]["array"] == "0-0"
    assert (out / "sum").read_text() == "30"


def test_slurm_is_refused_where_it_cannot_work(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = stages(tmp_path / "out")
    with pytest.raises(DataError, match="--slurm-time 'soon' is not a time"):
        run_stages(plan, SlurmSettings(partition="cpu", time="soon"), tmp_path / "work")
    with monkeypatch.context() as inside:
        inside.setenv("SLURM_ARRAY_TASK_ID", "0")
        with pytest.raises(DataError, match="no arrays can be submitted"):
            run_stages(plan, SlurmSettings(partition="cpu", time="10"), tmp_path / "work")
    (tmp_path / "slurm/bin/sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    with pytest.raises(DataError, match="squares: sbatch refused the job"):
        run_stages(plan, SlurmSettings(partition="cpu", time="10"), tmp_path / "work")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match="no `sbatch` on this machine"):
        run_stages(plan, SlurmSettings(partition="cpu", time="10"), tmp_path / "work")


def test_ray_runs_the_same_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(execution_tasks.__file__).parent) + ":" + os.environ.get("PYTHONPATH", "")
    )
    settings = RaySettings(workers=2, memory_per_cpu_gb=0.2)
    run_stages(stages(tmp_path / "out"), settings, tmp_path / "work")
    assert (tmp_path / "out" / "sum").read_text() == "30"
    (tmp_path / "out" / "obstacle").touch()
    with pytest.raises(DataError, match="is in the way of task 1"):
        run_stages(stages(tmp_path / "out", forbidden=1), settings, tmp_path / "other")


def test_shares_are_disjoint_and_whole() -> None:
    for tasks in (1, 3, 20):
        shares = [share(range(11), task, tasks) for task in range(tasks)]
        assert sorted(item for part in shares for item in part) == list(range(11))
