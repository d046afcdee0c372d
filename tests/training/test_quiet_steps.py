"""A step asks nothing of the file system, and waits for the device once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from step_jobs import files_touched_in_steps, waits_for_the_device
from training_runs import TrainingRuns

from megatron_salamandra.run_directory import MetricsLog
from megatron_salamandra.training import LanguageScore, Metric, Sink
from megatron_salamandra.training.metrics.sink_thread import SinkThread
from megatron_salamandra.training.metrics.sinks import SinkList

LOSS = [Metric(("loss",), 1.5, "nats/token")]
LOGGER = logging.getLogger("test")


def test_the_training_thread_neither_opens_nor_writes_a_file_in_a_step(runs: TrainingRuns) -> None:
    """With a line on the console, in metrics.jsonl and in TensorBoard for every step."""
    name = "quiet-steps"
    overrides = ["training.steps=12", "logging.console_every_steps=1", "logging.tensorboard=true"]
    places = [f"data.blend={runs.blend}", f"run_dir={runs.root / name}"]
    (found,) = runs.pool.run(1, files_touched_in_steps, [*places, *overrides], 3, 11)
    assert found == {"code": 0, "opened": [], "calls": {"syscr": 0, "syscw": 0}}
    assert [record.step for record in MetricsLog(runs.root / name / "metrics.jsonl").read()] == list(
        range(1, 13)
    )


class Slow(Sink):
    """Writes nothing before it is let."""

    name = "a slow sink"

    def __init__(self) -> None:
        self.let = threading.Event()
        self.called: list[str] = []

    def open(self, step: int) -> None:
        self.called.append(f"open {step}")

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        assert self.let.wait(60)
        self.called.append(f"write {step}")

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        self.called.append(f"validation {step}")

    def close(self) -> None:
        self.called.append("close")


def test_steps_do_not_wait_for_a_slow_place_and_saves_do() -> None:
    slow = Slow()
    thread = SinkThread(SinkList([slow], LOGGER))
    thread.open(-1)
    for step in (1, 2):
        thread.write(step, LOSS)
    thread.write_validation(2, [])
    assert slow.called == ["open -1"]
    slow.let.set()
    thread.drain()
    assert slow.called == ["open -1", "write 1", "write 2", "validation 2"]
    thread.write(3, LOSS)
    thread.close()
    assert slow.called[-2:] == ["write 3", "close"]
    assert "metrics" not in [one.name for one in threading.enumerate()]


class Exits(Sink):
    """A library that asks for the end of the program."""

    name = "a sink that exits"

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        raise SystemExit(3)


def test_a_sink_that_exits_leaves_nobody_waiting() -> None:
    thread = SinkThread(SinkList([Exits()], LOGGER))
    thread.open(-1)
    thread.write(1, LOSS)
    thread.drain()
    thread.close()


def test_a_process_is_forked_between_two_writes_only(tmp_path: Path) -> None:
    """The writers of a save, which may log, find no lock held by a thread that they do not have."""

    class Marks(Sink):
        name = "marks"
        writing = False

        def write(self, step: int, metrics: Sequence[Metric]) -> None:
            Marks.writing = True
            threading.Event().wait(0.002)
            Marks.writing = False

    thread = SinkThread(SinkList([Marks()], LOGGER))
    thread.open(-1)
    for step in range(1, 31):
        thread.write(step, LOSS)
        if step % 5 == 0:
            pid = os.fork()
            if pid == 0:
                os._exit(7 if Marks.writing else 0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    thread.close()


@pytest.mark.parametrize(
    ("layout", "ranks", "overrides"),
    [
        (
            "DP2",
            2,
            ["optimizer.overlap_grad_reduce=true", "optimizer.overlap_param_gather=true", "precision=bf16"],
        ),
        ("TP2xPP2", 4, ["parallel.tensor=2", "parallel.pipeline=2", "parallel.sequence=true"]),
    ],
)
def test_a_step_waits_for_the_device_once_and_logging_never(
    runs: TrainingRuns, layout: str, ranks: int, overrides: list[str]
) -> None:
    """With a line on the console and a comparison of ranks in every second step."""
    name = f"waits-{layout}"
    places = [f"data.blend={runs.blend}", f"run_dir={runs.root / name}", "training.steps=8"]
    watched = [*places, "logging.console_every_steps=2", *overrides]
    for found in runs.pool.run(ranks, waits_for_the_device, watched, 2, 7):
        assert found == {"code": 0, "scalars": {}, "fetches": dict.fromkeys(range(3, 8), 1)}
    assert "slowest" in runs.metrics(name)[3]["ranks"]
