"""A stop in a validation or in a save loses nothing, and what was broken off is made up for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from synthetic_blend import LANGUAGES
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import TrainingRuns

from megatron_salamandra.run_directory import RunDirectory, ValidationLog

SHORT = ["training.steps=6", "optimizer.warmup_steps=2"]
SCORES = len(LANGUAGES) + 2
"""Of one validation: every language and both averages."""


def signal_in(where: str, step: int, rank: int = 0) -> str:
    options = {"step": step, "where": where, "rank": rank}
    return f"callbacks={json.dumps([{'path': 'signal_callbacks:SignalIn', 'options': options}])}"


def validated(runs: TrainingRuns, name: str) -> list[int]:
    records = ValidationLog(RunDirectory(runs.root / name).validation).read()
    steps = [record.step for record in records]
    assert all(steps.count(step) == SCORES for step in steps)
    return sorted(set(steps))


def details(runs: TrainingRuns, name: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in runs.events(name) if event["event"] == kind]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_last_step_is_saved_before_it_is_validated(runs: TrainingRuns, ranks: int) -> None:
    """So a signal in the last validation, here on the last rank alone, costs the validation, which is made up for."""
    name = f"signal-at-the-end-{ranks}"
    ending = [*SHORT, "validation.at_end=true", "checkpoint.asynchronous=true"]
    assert runs.train(name, ranks, *ending, signal_in("validation", 6, rank=ranks - 1)) == 75
    assert [event["saved"] for event in details(runs, name, "signal-sent")] == [[6]]
    assert not (runs.root / name / "validation.jsonl").exists()
    metrics = runs.metrics(name)
    assert runs.train(name, ranks, *ending) == 0
    assert validated(runs, name) == [6]
    assert runs.metrics(name) == metrics
    # And no more than once.
    assert runs.train(name, ranks, *ending) == 0
    assert validated(runs, name) == [6]
    assert details(runs, name, "end")[-1]["reason"] == "all 6 steps are done"


def test_a_validation_on_the_way_is_broken_off_and_made_up_for(runs: TrainingRuns) -> None:
    often = [*SHORT, "validation.every_steps=3"]
    assert runs.train("not-signalled", 1, *often) == 0
    assert validated(runs, "not-signalled") == [3, 6]
    name = "signal-on-the-way"
    assert runs.train(name, 1, *often, signal_in("validation", 3)) == 75
    assert len(runs.metrics(name)) == 3
    assert runs.checkpoint(name, 3).exists()
    assert runs.train(name, 1, *often) == 0
    assert validated(runs, name) == [3, 6]
    assert runs.losses(name) == runs.losses("not-signalled")
    scores = [
        ValidationLog(RunDirectory(runs.root / run).validation).read() for run in (name, "not-signalled")
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_a_signal_in_a_save_costs_no_further_step(runs: TrainingRuns, asynchronous: str) -> None:
    name = f"signal-in-save-{asynchronous}"
    saving = [*SHORT, "checkpoint.every_steps=2", f"checkpoint.asynchronous={asynchronous}"]
    assert runs.train(name, 2, *saving, signal_in("checkpoint", 2, rank=1)) == 75
    reached = len(runs.metrics(name))
    # In the background the save of step 2 ends when step 3 or the next save looks for it.
    assert reached == 2 if asynchronous == "false" else reached <= 4
    assert runs.checkpoint(name, reached).exists()
    assert details(runs, name, "failure") == []
    assert runs.train(name, 2, *saving) == 0


def test_a_save_gets_its_name_while_a_validation_goes_on(runs: TrainingRuns) -> None:
    notes = f"callbacks={json.dumps([{'path': 'signal_callbacks:NotesSaves'}])}"
    saving = ["checkpoint.every_steps=2", "checkpoint.asynchronous=true", "checkpoint.at_end=false"]
    # The validation of step 2 comes before its save, that of step 3 beside it.
    assert (
        runs.train(
            "named-meanwhile", 1, "training.steps=5", "optimizer.warmup_steps=2", *saving, notes,
            "validation.every_steps=3",
        )
        == 0
    )  # fmt: skip
    noted = [event["saved"] for event in details(runs, "named-meanwhile", "between-languages")]
    assert len(noted) == len(LANGUAGES)
    assert noted[-1] == [2]


def test_a_stop_that_was_asked_for_is_not_repeated(runs: TrainingRuns) -> None:
    asked = [*SHORT, "training.stop_after_steps=3"]
    assert runs.train("asked", 1, *asked) == 75
    config = (runs.root / "asked" / "config.yaml").read_text()
    assert runs.train("asked", 1, *asked, "optimizer.lr=1.0e-3") == 0
    assert details(runs, "asked", "end")[-1]["reason"] == (
        "training.stop_after_steps = 3 is reached: step 3 is done"
    )
    assert "nothing to do" in (runs.root / "asked" / "logs" / "rank-0000.log").read_text()
    assert (runs.root / "asked" / "config.yaml").read_text() == config
    assert details(runs, "asked", "change") == []
    assert runs.train("asked", 1, *SHORT) == 0
    assert len(runs.metrics("asked")) == 6


def test_a_start_with_nothing_to_do_leaves_the_run_as_it_is(runs: TrainingRuns) -> None:
    assert runs.train("longer", 1, *SHORT) == 0
    directory = runs.root / "longer"
    kept = ("config.yaml", "metrics.jsonl", "environment.json")
    before = {name: (directory / name).read_bytes() for name in kept}
    assert runs.train("longer", 1, "training.steps=4", "optimizer.warmup_steps=2") == 0
    assert details(runs, "longer", "end")[-1]["reason"] == "step 6 is already past training.steps = 4"
    assert {name: (directory / name).read_bytes() for name in kept} == before


@pytest.mark.parametrize("asynchronous", [False, True], ids=["before a save", "while a save is written"])
def test_a_run_that_was_cut_off_publishes_nothing(runs: TrainingRuns, asynchronous: bool) -> None:
    name = f"taken-over-{asynchronous}"
    taken = f"callbacks={json.dumps([{'path': 'signal_callbacks:TakenOver', 'options': {'step': 3}}])}"
    saving = ["checkpoint.every_steps=2", f"checkpoint.asynchronous={str(asynchronous).lower()}"]
    assert runs.train(name, 2, "training.steps=8", "optimizer.warmup_steps=2", *saving, taken) == 1
    published = {path.name for path in (runs.root / name / "checkpoints").glob("step-*")}
    # In the background the save of step 2 may have ended before the run was cut off.
    assert published <= {"step-00000002"} if asynchronous else published == {"step-00000002"}
    assert "was taken over by process" in details(runs, name, "failure")[-1]["error"]
    assert len(runs.metrics(name)) <= 4
    owner = json.loads((runs.root / name / ".owner").read_text())
    assert owner["host"] == "node9"


def test_after_crashes_between_saves_every_diary_has_each_step_once(runs: TrainingRuns) -> None:
    """Two crashes at step 6, before its save: steps 4 and 5 are done three times."""
    name = "crashes"
    common = [
        "training.steps=7",
        "optimizer.warmup_steps=2",
        "checkpoint.every_steps=3",
        "validation.every_steps=1",
    ]
    crash = f"callbacks={json.dumps([{'path': 'sample_callbacks:Diary', 'options': {'fail_at': 6}}])}"
    for _ in range(2):
        assert runs.train(name, 1, *common, "logging.tensorboard=true", crash) == 1
        assert [entry["step"] for entry in runs.metrics(name)] == [1, 2, 3, 4, 5]
    assert [event["rank"] for event in details(runs, name, "failure")] == [0, 0]
    assert runs.train(name, 1, *common, "logging.tensorboard=true") == 0
    steps = list(range(1, 8))
    assert [entry["step"] for entry in runs.metrics(name)] == steps
    assert validated(runs, name) == steps
    curves = EventAccumulator(str(runs.root / name / "tensorboard"))
    curves.Reload()
    points = {tag: curves.Scalars(tag) for tag in ("train/loss", "validation_loss/macro")}
    assert [point.step for point in points["train/loss"]] == steps
    assert [point.step for point in points["validation_loss/macro"]] == steps
    assert [point.value for point in points["train/loss"]] == pytest.approx(runs.losses(name))
    # Events tell what happened, also twice; a save of a step comes once.
    assert [event["step"] for event in details(runs, name, "checkpoint")] == [3, 6, 7]
    assert runs.train("no-crashes", 1, *common) == 0
    assert runs.losses(name) == runs.losses("no-crashes")
