"""A pool gives every result, tells what went wrong in a worker, and waits for nobody who is gone."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pool_tasks import Task, do

from megatron_salamandra.foundation.directory_lock import sole_use
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


FORKED = """
import os, sys, time
from pathlib import Path
from megatron_salamandra.foundation.directory_lock import sole_use
from pool_tasks import do
from salamandra_data.execution import WorkerPool

unpicklable = lambda: None  # reaches a forked worker, and no other
with sole_use(Path(sys.argv[1])):
    pool = WorkerPool(3, unpicklable)
    with pool.workers_kept():
        pool.start(3)
        assert len(list(pool.run(do, [("sleep", 0)] * 9))) == 9
        print(*(worker.process.pid for worker in pool._kept), flush=True)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), 9)
print("ended", flush=True)
"""


@pytest.mark.parametrize("end", ["told", "killed"])
def test_forked_workers_end_with_their_pool_and_leave_its_lock(tmp_path: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path), end],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(inspect.getfile(do)).parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr
    pids, *rest = done.stdout.splitlines()
    assert rest == ([] if end == "killed" else ["ended"]), done.stderr
    with sole_use(tmp_path):  # at once: the lock went with the process that took it
        pass
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids.split()):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
