"""A pool gives every result, tells what went wrong in a worker, and waits for nobody who is gone."""

from __future__ import annotations

import multiprocessing
import signal
import time

import pytest
from pool_tasks import Task, do

from salamandra_data.errors import DataError
from salamandra_data.execution import WorkerDied, WorkerPool


def results(tasks: list[Task], workers: int = 2) -> list[str]:
    return list(WorkerPool(workers, "state").run(do, tasks))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_task_gives_its_result_once(workers: int) -> None:
    tasks: list[Task] = [("sleep", number / 1000) for number in range(7)]
    assert sorted(results(tasks, workers)) == sorted(f"state sleep {number:g}" for _, number in tasks)


def test_results_come_when_they_are_ready() -> None:
    assert results([("sleep", 3.0), ("sleep", 0.0)]) == ["state sleep 0", "state sleep 3"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (("signal", signal.SIGKILL), r"was killed, most often because memory ran out(?s:.*)fewer --workers"),
        (("signal", signal.SIGSEGV), "was ended by SIGSEGV"),
        (("exit", 3), "ended with exit code 3"),
    ],
)
def test_a_worker_that_is_gone_is_told_by_how_it_went(task: Task, message: str) -> None:
    before = set(multiprocessing.active_children())
    started = time.monotonic()
    with pytest.raises(WorkerDied, match=f"a worker process {message}"):
        results([("work", 600), task])
    assert time.monotonic() - started < 60  # the other stopped when it was told
    assert set(multiprocessing.active_children()) <= before


def test_what_a_task_raises_is_raised_here() -> None:
    with pytest.raises(DataError, match="^state: task 5 failed$"):
        results([("work", 600), ("fail", 5)])
    with pytest.raises(KeyError) as caught:
        results([("work", 600), ("bug", 5)])
    assert "in do" in caught.value.__notes__[0]  # where it was raised, in the other process


def test_leaving_the_results_early_ends_the_workers() -> None:
    before = set(multiprocessing.active_children())
    for result in WorkerPool(2, "state").run(do, [("sleep", 0), ("work", 600), ("work", 600)]):
        assert result == "state sleep 0"
        break
    assert set(multiprocessing.active_children()) <= before
