"""Steps that are not like the others: found by what is usual, kept out within a budget, and recorded."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_runs import TrainingRuns

from megatron_salamandra import cli
from megatron_salamandra.config import GuardSection
from megatron_salamandra.data import RunRecord
from megatron_salamandra.run_directory import (
    Incident,
    IncidentError,
    RunDirectory,
    incident_number,
    next_incident_number,
    read_incident,
    write_incident,
)
from megatron_salamandra.training import Action, Decision, Measurement
from megatron_salamandra.training.callbacks.guard import Guard
from megatron_salamandra.training.usual_values import UsualValues

SHORT = ["training.steps=6", "optimizer.warmup_steps=2"]


def guard(step: int = 0, **settings: Any) -> Guard:
    """A guard of a run that is nowhere on disk."""
    made = Guard(GuardSection(**settings))
    view = SimpleNamespace(logger=logging.getLogger("test"), is_writer=False, step=step)
    made.run = view  # type: ignore[assignment]
    made.start()
    return made


def quiet_losses(steps: int, seed: int = 0) -> Iterator[Measurement]:
    """Losses that fall as those of a run do, with noise."""
    draw = random.Random(seed)
    for step in range(1, steps + 1):
        loss = 2 + 9 * math.exp(-step / 100) + draw.gauss(0, 0.05)
        yield Measurement(step, loss, math.exp(draw.gauss(0, 0.3)), 1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_run_has_no_spikes(seed: int) -> None:
    watching = guard(on_spike="skip")
    assert all(watching.before_update(one) == Decision.apply() for one in quiet_losses(3000, seed))


@pytest.mark.parametrize(("loss", "norm"), [(4.5, 1.0), (2.0, 60.0), (30.0, 1e9)])
@pytest.mark.parametrize("action", ["none", "skip", "roll_back"])
def test_a_spike_is_answered_as_asked_and_does_not_become_usual(
    loss: float, norm: float, action: str
) -> None:
    watching = guard(step=1, on_spike=action)
    for one in quiet_losses(800):
        watching.before_update(one)
    answer = watching.before_update(Measurement(801, loss, norm, 1e-3))
    expected = {"none": Action.APPLY, "skip": Action.SKIP, "roll_back": Action.ROLL_BACK}[action]
    assert answer.action is expected
    assert answer.past_this_step == (action == "roll_back")
    if action != "none":
        assert "deviations above" in answer.reason
        assert watching.before_update(Measurement(802, loss, norm, 1e-3)).action is expected


def test_before_half_a_window_nothing_is_a_spike_but_everything_must_be_finite() -> None:
    watching = guard(window=8, on_spike="skip")
    assert watching.before_update(Measurement(1, 11.0, 1.0, 0.1)).action is Action.APPLY
    assert watching.before_update(Measurement(2, 1e6, 1e6, 0.1)).action is Action.APPLY
    assert watching.before_update(Measurement(3, math.nan, 1.0, 0.1)).action is Action.SKIP


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (-math.inf, 1.0), (1.0, math.nan)]
)
def test_the_budget_of_a_window_is_all_there_is(loss: float, norm: float) -> None:
    watching = guard(window=10, budget=2)
    answers = [watching.before_update(Measurement(step, loss, norm, 0.1)).action for step in range(1, 5)]
    assert answers == [
        Action.SKIP,
        Action.SKIP,
        Action.APPLY,
        Action.APPLY,
    ]  # the trainer refuses to apply it
    assert watching.before_update(Measurement(11, loss, norm, 0.1)).action is Action.SKIP


def test_without_a_checkpoint_a_roll_back_is_a_skip() -> None:
    watching = guard(on_nonfinite="roll_back")
    assert watching.before_update(Measurement(3, math.nan, 1.0, 0.1)).action is Action.SKIP
    watching.after_checkpoint(4, Path())
    assert watching.before_update(Measurement(5, math.nan, 1.0, 0.1)).action is Action.ROLL_BACK


def test_a_guard_that_resumed_answers_as_the_one_that_went_on() -> None:
    first, second = guard(step=1, on_spike="skip"), guard(step=1, on_spike="skip")
    measured = list(quiet_losses(600))
    measured[550] = Measurement(551, 50.0, 1.0, 1e-3)
    for one in measured[:300]:
        first.before_update(one)
    second.load_state(json.loads(json.dumps(first.state())))
    assert [first.before_update(one) for one in measured[300:]] == [
        second.before_update(one) for one in measured[300:]
    ]
    assert first.state() == second.state()


def test_usual_values_do_not_mind_one_spike_nor_a_run_that_stands_still() -> None:
    usual = UsualValues(10, [2.0] * 9 + [1e9])
    assert usual.deviations_above(2.01) < 2
    assert usual.deviations_above(3.0) > 40
    assert usual.deviations_above(1.0) == 0
    assert usual.deviations_above(math.nan) == math.inf
    assert UsualValues(10, [2.0] * 4).deviations_above(1e9) == 0


def test_a_step_that_is_not_finite_is_skipped_and_its_documents_are_recorded(runs: TrainingRuns) -> None:
    assert runs.train_until_nan("guarded", 2, *SHORT) == 0
    assert [entry["step"] for entry in runs.metrics("guarded") if entry.get("skipped")] == [3]
    (event,) = [event for event in runs.events("guarded") if event["event"] == "incident"]
    assert (event["step"], event["number"], event["incident"], event["action"]) == (
        3,
        1,
        "not finite",
        "skip",
    )
    incident = read_incident(RunDirectory(runs.root / "guarded").incidents, 1)
    assert math.isnan(incident.loss) and math.isfinite(incident.grad_norm)
    record = RunRecord(runs.root / "guarded")
    samples = record.step_samples(3)
    assert incident.samples == (samples[0], samples[-1])
    expected = [record.contents(3, sample).to_dict(sample) for sample in samples]
    assert list(incident.contents) == expected
    assert all(sample["documents"] for sample in expected)


def test_a_roll_back_goes_on_behind_the_samples_of_the_step(runs: TrainingRuns) -> None:
    saving = ["checkpoint.every_steps=2", "guard.on_nonfinite=roll_back"]
    assert runs.train_until_nan("guarded-back", 2, *SHORT, *saving) == 0
    (event,) = [event for event in runs.events("guarded-back") if event["event"] == "roll_back"]
    assert (event["step"], event["to_step"], event["passed_over_samples"]) == (3, 2, 4)
    assert [entry["step"] for entry in runs.metrics("guarded-back")] == [1, 2, 3, 4, 5, 6]
    state = json.loads((runs.checkpoint("guarded-back", 6) / "state.json").read_text())
    assert [segment["first_sample"] for segment in state["position"]["segments"]] == [0, 12]
    assert (state["skipped_updates"], state["consumed_samples"]) == (0, 24)


def test_weights_that_are_spoilt_end_the_run_when_the_budget_is_spent(runs: TrainingRuns) -> None:
    hopeless = ["optimizer.lr=1.0e30", "training.grad_clip=0", "guard.budget=2"]
    assert runs.train("hopeless", 1, *SHORT, *hopeless) == 1
    assert [entry.get("skipped") for entry in runs.metrics("hopeless")] == [None, True, True]
    assert "nothing was updated" in runs.events("hopeless")[-1]["error"]
    last = read_incident(RunDirectory(runs.root / "hopeless").incidents, 3)
    assert (last.step, last.action) == (4, "fail")
    assert "guard.budget" in last.reason


@pytest.mark.parametrize("place", ["/proc/self", "/dev/null"])
def test_an_incident_that_cannot_be_written_does_not_end_the_run(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    watching = guard()
    watching.run = SimpleNamespace(  # type: ignore[assignment]
        logger=logging.getLogger("test"),
        is_writer=True,
        timeline=SimpleNamespace(step_samples=lambda step: range(4)),
        directory=SimpleNamespace(incidents=Path(place)),  # nothing can be made there, even by root
    )
    watching.record(Measurement(3, 9.0, 1.0, 1e-3), "spike", "none", "a jump", contents=False)
    assert "the incident cannot be written" in caplog.text


def test_incidents_are_numbered_and_wrong_files_are_named(tmp_path: Path) -> None:
    one = Incident(1, 5, "spike", "skip", "why", 3.5, math.inf, (16, 19), [{"sample": 16}])
    assert next_incident_number(tmp_path / "incidents") == 1
    write_incident(tmp_path / "incidents", one)
    assert read_incident(tmp_path / "incidents", 1) == one
    assert next_incident_number(tmp_path / "incidents") == 2
    with pytest.raises(IncidentError, match="no incident 2; it has 1"):
        read_incident(tmp_path / "incidents", 2)
    (tmp_path / "incidents" / "0002-step-00000007.json").write_text('{"number": 2}')
    with pytest.raises(IncidentError, match=r"0002-step-00000007.json is no record"):
        read_incident(tmp_path / "incidents", 2)


def test_an_incident_that_comes_again_after_a_crash_keeps_its_number(tmp_path: Path) -> None:
    for number, step, first in ((1, 5, 16), (2, 9, 32), (3, 5, 40)):  # the third after a roll back
        write_incident(
            tmp_path, Incident(number, step, "spike", "none", "", 3.5, 1.0, (first, first + 3), [])
        )
    assert [incident_number(tmp_path, 5, (first, first + 3)) for first in (16, 40, 44)] == [1, 3, 4]
    assert incident_number(tmp_path, 9, (32, 35)) == 2
    (tmp_path / "0004-step-00000005.json").write_text("torn")
    assert incident_number(tmp_path, 5, (44, 47)) == 5


def test_a_replay_tells_data_from_machines(runs: TrainingRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate of 1e30 spoils step 2 every time; a loss that was spoilt on its way is fine the next time."""
    hopeless = ["optimizer.lr=1.0e30", "training.grad_clip=0", "guard.budget=1", "checkpoint.every_steps=1"]
    assert runs.train("of-the-recipe", 1, *SHORT, *hopeless) == 1
    explain = ["explain", str(runs.root / "of-the-recipe"), "--incident", "1"]
    assert cli.main([*explain, "--replay"]) == 0
    assert "the same to the bit" in capsys.readouterr().out
    assert cli.main(explain) == 0
    shown = capsys.readouterr().out
    assert "incident 1: step 2, not finite, skip: the gradient norm is nan" in shown and "document" in shown
    assert runs.train_until_nan("of-a-machine", 2, *SHORT, "checkpoint.every_steps=2") == 0
    assert cli.main(["explain", str(runs.root / "of-a-machine"), "--incident", "1", "--replay"]) == 1
    assert "not the same" in capsys.readouterr().out
    assert runs.metrics("of-a-machine")[-1]["step"] == 6  # the run itself was not touched


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs --step or --incident"),
        (["--step", "1", "--incident", "1"], "and not both"),
        (["--step", "1", "--replay"], "name it with --incident"),
        (["--incident", "1", "--ranks", "2"], "--ranks is for --replay"),
        (["--incident", "7"], "no incident 7; it has none"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["explain", str(tmp_path), *words]) != 0
    assert message in capsys.readouterr().err
