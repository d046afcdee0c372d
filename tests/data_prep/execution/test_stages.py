"""Stages run in order, once, and tell what failed, on one machine and on Ray."""

from __future__ import annotations

import os
from pathlib import Path

import execution_tasks
import pytest
from execution_tasks import DieSilently, WriteSquare, WriteSum

from salamandra_data.errors import DataError
from salamandra_data.execution import (
    LocalSettings,
    RaySettings,
    Stage,
    run_stages,
    share,
)

TASKS = 5


def stages(directory: Path, forbidden: int = -1, tasks: int = TASKS) -> list[Stage]:
    directory.mkdir(exist_ok=True)
    return [
        Stage("squares", tasks, WriteSquare(directory, forbidden)),
        Stage("sum", 1, WriteSum(directory)),
    ]


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


def test_stages_cut_into_other_tasks_do_not_go_on_where_these_stopped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = stages(out, forbidden=3)
    (out / "obstacle").touch()
    with pytest.raises(DataError, match="is in the way"):
        run_stages(plan, LocalSettings(), tmp_path / "work")
    with pytest.raises(
        DataError, match="squares was begun with 5 tasks and cannot go on with 3\n.*same --tasks"
    ):
        run_stages(stages(out, tasks=3), LocalSettings(), tmp_path / "work")


def test_a_killed_worker_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"(?s)2 of 2 tasks are not done.*a worker process was killed"):
        run_stages([Stage("doomed", 2, DieSilently())], LocalSettings(2), tmp_path / "work")


def test_a_stage_started_before_the_one_before_it_is_complete_refuses(tmp_path: Path) -> None:
    from salamandra_data.execution.stage import StageRecord
    from salamandra_data.execution.stage_step import StageStep

    out, work = tmp_path / "out", tmp_path / "work"
    squares, total = stages(out)
    run_stages([squares], LocalSettings(), work)
    step = StageStep(total, StageRecord.of(total, work), StageRecord.of(squares, work))
    (work / "squares/completions/00002").unlink()
    with pytest.raises(DataError, match="not yet the turn of sum: squares: 1 of 5 tasks are not done"):
        step.run(None, 0)
    assert not (out / "sum").exists()
    assert "not yet the turn" in StageRecord.of(total, work).failure([0])


@pytest.mark.slow
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


def test_a_task_too_large_for_ray_here_is_refused_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(DataError, match="--memory-per-cpu 1e\\+06: Ray has .* for tasks on this machine"):
        run_stages(stages(tmp_path / "out"), RaySettings(memory_per_cpu_gb=1e6), tmp_path / "work")


def test_shares_are_disjoint_and_whole() -> None:
    for tasks in (1, 3, 20):
        shares = [share(range(11), task, tasks) for task in range(tasks)]
        assert sorted(item for part in shares for item in part) == list(range(11))
