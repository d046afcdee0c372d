"""The rank that the others wait for is found, and told once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rank_jobs import train_with_a_slow_rank
from training_runs import TrainingRuns

from megatron_salamandra.hangs import Part, Place, RankRecord, RoundFiles, round_directory
from megatron_salamandra.run_directory import RunDirectory
from megatron_salamandra.training.callbacks.stragglers import Stragglers
from megatron_salamandra.training.report import StepReport


class Told:
    """A run of four ranks as a callback of rank 0 sees it; every rank's seconds are given."""

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.metrics: dict[str, float] = {}
        self.step = 0
        self.callback = Stragglers()
        self.callback.run = SimpleNamespace(  # type: ignore[assignment]
            world_size=4,
            rank=0,
            is_writer=True,
            directory=RunDirectory(path),
            config=SimpleNamespace(logging=SimpleNamespace(console_every_steps=10)),
            record=lambda name, value, unit="": self.metrics.update({name: value}),
            logger=SimpleNamespace(warning=lambda *arguments: None),
            events=SimpleNamespace(write=lambda kind, **details: self.events.append(details)),
        )

    def steps(self, number: int, *seconds: float) -> None:
        for _ in range(number):
            self.step += 1
            sums = {"Stragglers": list(seconds)} if self.callback.to_sum(self.step) else {}
            self.callback.after_step(
                StepReport(self.step, 1.0, 1.0, 0.1, 1, 1, sums=sums, busy_seconds=seconds[0])
            )


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_a_rank_that_stays_slow_is_told_once_with_its_host(told: Told, tmp_path: Path) -> None:
    files = RoundFiles(round_directory(RunDirectory(tmp_path)))
    files.prepare()
    files.write(RankRecord(2, 4, "node7", 1, "", Place(Part.DATA, 3, "", 1), 0.0, None, 10.0))
    told.steps(10, 1.0, 1.1, 1.5, 1.0)
    assert told.metrics["ranks/slowest"] == 2
    assert told.metrics["ranks/slowest_excess_seconds"] == pytest.approx(0.5)
    assert not told.events  # perhaps it passes
    told.steps(30, 1.0, 1.1, 1.5, 1.0)
    (event,) = told.events
    assert (event["rank"], event["host"], event["step"]) == (2, "node7", 20)
    told.steps(10, 1.0, 1.0, 1.0, 1.0)
    told.steps(20, 1.0, 1.0, 1.5, 1.0)
    assert len(told.events) == 2


def test_ranks_that_are_slow_by_turns_or_by_little_are_no_stragglers(told: Told) -> None:
    for _ in range(4):
        told.steps(10, 1.0, 1.0, 1.5, 1.0)
        told.steps(10, 1.0, 1.5, 1.0, 1.0)
    told.steps(60, 1.0, 1.0, 1.2, 1.0)
    told.steps(60, 0.001, 0.001, 0.009, 0.001)
    assert not told.events


def test_a_slow_rank_of_a_run_is_in_metrics_and_events(runs: TrainingRuns) -> None:
    overrides = ["training.steps=22", "validation.at_end=false", "logging.console_every_steps=10"]
    assert runs.run_job(train_with_a_slow_rank, "slow-rank", 2, *overrides) == 0
    measured = runs.metrics("slow-rank")[9]["ranks"]
    assert measured["slowest"] == 1
    assert measured["slowest_excess_seconds"] > 0.2
    (event,) = [event for event in runs.events("slow-rank") if event["event"] == "straggler"]
    assert event["rank"] == 1
