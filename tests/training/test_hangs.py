"""A rank that hangs, with real processes: all end soon, it is named, and the run goes on with the same losses."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from local_runs import command, started
from rank_jobs import SMALL_CONFIG
from training_runs import TrainingRuns

from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_HUNG
from megatron_salamandra.run_directory import MetricsLog, RunDirectory, read_events

LENGTH = ("training.steps=12", "checkpoint.every_steps=5", "validation.at_end=false")


def hanging(way: str, rank: int) -> list[str]:
    options = f"{{way: {way}, step: 8, rank: {rank}}}"
    # Enough for a step on a machine that does other things as well.
    return [f'callbacks=[{{path: "hanging_callbacks:Hangs", options: {options}}}]', "hangs.step_seconds=8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "rank", "said"),
    [
        ("freeze", 0, "rank 0 on .*: no sign of life for .* 1 other rank waits in reduce of step 9"),
        (
            "loop",
            1,
            r"rank 1 on .*: in callbacks after step 8 \(Hangs\) .* 1 other rank waits in reduce of step 9",
        ),
    ],
)
def test_a_rank_that_hangs_is_named_and_the_same_command_goes_on(
    runs: TrainingRuns, blend: Path, tmp_path: Path, way: str, rank: int, said: str
) -> None:
    run, line = RunDirectory(tmp_path / "run"), [*LENGTH, *hanging(way, rank)]
    support = str(Path(__file__).parents[1] / "support")
    with started(command(blend, run.path, *line), PYTHONPATH=support) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == EXIT_HUNG, errors
    assert re.search(said, errors), errors
    event = next(event for event in read_events(run.events) if event.kind == "hang")
    assert event.details["late"][0]["rank"] == rank
    (stacks,) = run.control.glob("round-local-*/stacks")
    assert "reduce_gradients" in (stacks / f"rank-{1 - rank:05d}.txt").read_text()
    if way == "loop":
        assert "endless_loop" in (stacks / f"rank-{rank:05d}.txt").read_text()
    with started(command(blend, run.path, *line), PYTHONPATH=support) as process:
        assert process.wait(timeout=240) == EXIT_DONE
    if "hangs-reference" not in os.listdir(runs.root):
        runs.train("hangs-reference", 2, *LENGTH)
    assert [record.loss for record in MetricsLog(run.metrics).read()] == runs.losses("hangs-reference")


def test_without_a_launcher_of_ours_one_rank_names_the_late_one(blend: Path, tmp_path: Path) -> None:
    """As under torchrun."""
    run = RunDirectory(tmp_path / "run")
    line = [sys.executable, "-m", "megatron_salamandra.train", str(SMALL_CONFIG), f"data.blend={blend}"]
    line += [f"run_dir={run.path}", *LENGTH, *hanging("lock", 0)]
    with started(line, PYTHONPATH=str(Path(__file__).parents[1] / "support"), OMP_NUM_THREADS="1") as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == EXIT_HUNG, errors
    assert "in callbacks after step 8 (Hangs)" in errors
    assert [event.kind for event in read_events(run.events)][-1] == "hang"
