"""One run over several phases: blend, windows, learning rate and ledger change where the configuration says."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from training_runs import TrainingRuns

from megatron_salamandra.cli import main
from megatron_salamandra.config import learning_rate_of, load_run_config
from megatron_salamandra.data import RunRecord, RunStream, SampleStream, final_ordinals
from salamandra_data.blend_plan import BlendPlan, LanguageFactors, reweighted

SMALL = Path(__file__).parents[1] / "support" / "small.yaml"
WITHOUT_PHASES = ["training.steps=6", "optimizer.warmup_steps=2"]


@pytest.fixture(scope="module")
def no_irish(blend: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    factors = LanguageFactors({"en": Fraction(1), "ca": Fraction(1), "ga": Fraction(0)})
    path = tmp_path_factory.mktemp("second") / "blend.yaml"
    reweighted(BlendPlan.load(blend), factors).save(path)
    return path


@pytest.fixture(scope="module")
def phases(no_irish: Path) -> list[str]:
    """Four steps of the common blend, three without Irish, two of longer windows and stretched wavelengths."""
    return [
        "optimizer.warmup_steps=2",
        "phases.first={steps: 4}",
        f"phases.second={{steps: 3, blend: {no_irish}, new_text: [en]}}",
        "phases.long={steps: 2, sequence_length: 128, global_batch_size: 2, "
        "rope_scaling: {factor: 2, original_sequence_length: 64}, "
        "learning_rate: {join: rewarm, lr: 1.0e-3, min_lr: 1.0e-4, warmup_steps: 1}}",
        "validation.every_steps=2",
        "checkpoint.every_steps=1",
        "checkpoint.keep_last=null",
    ]


@pytest.fixture(scope="module")
def whole(runs: TrainingRuns, phases: list[str]) -> str:
    assert runs.train("phased", 1, *phases) == 0
    return "phased"


def state_of(runs: TrainingRuns, name: str, step: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((runs.checkpoint(name, step) / "state.json").read_text())
    return state


def test_steps_tokens_and_rates_are_those_of_the_configuration(
    runs: TrainingRuns, whole: str, phases: list[str]
) -> None:
    config = load_run_config(str(SMALL), phases)
    metrics = runs.metrics(whole)
    assert [entry["step"] for entry in metrics] == list(range(1, 10))
    assert [entry["lr"] for entry in metrics] == [learning_rate_of(config, step) for step in range(1, 10)]
    assert [entry["tokens"] for entry in metrics] == [256 * step for step in range(1, 10)]
    events = [event for event in runs.events(whole) if event["event"] == "phase"]
    assert [(event["name"], event["step"]) for event in events] == [("second", 5), ("long", 8)]


def test_each_phase_goes_on_where_the_one_before_stopped(
    runs: TrainingRuns, whole: str, blend: Path, no_irish: Path
) -> None:
    first = SampleStream(BlendPlan.load(blend), 64, 1234)
    reached = final_ordinals(first.ledger(16))
    second = SampleStream(BlendPlan.load(no_irish), 64, 1234, {**reached, "en": 0})
    long = SampleStream(BlendPlan.load(blend), 128, 1234)
    assert state_of(runs, whole, 4)["phase_streams"] == [first.fingerprint()]
    assert state_of(runs, whole, 9)["phase_streams"] == [
        stream.fingerprint() for stream in (first, second, long)
    ]
    last = {entry["source"]: entry for entry in state_of(runs, whole, 9)["ledger"]}
    parts = [first.ledger(16), second.ledger(12), long.ledger(4)]
    for source in ("ca", "en", "ga"):
        drawn = [entry for part in parts for entry in part if entry.source == source]
        assert last[source]["tokens"] == sum(entry.tokens for entry in drawn)
        assert last[source]["next_ordinal"] == drawn[-1].next_ordinal
    assert sum(entry["tokens"] for entry in last.values()) == 9 * 256


def test_explain_reads_the_blend_of_the_phase(
    runs: TrainingRuns, whole: str, no_irish: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(runs.root / whole)
    for step in (4, 5, 8):
        assert main(["explain", str(runs.root / whole), "--step", str(step)]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sample ")]
        places = [record.stream.at(step).stream.locate(k) for k in record.step_samples(step)]
        assert [line.split(",")[0] for line in told] == [
            f"sample {place.sample}: {place.source}" for place in places
        ]
    assert record.step_samples(8) == range(2)


def test_a_stop_inside_any_phase_changes_nothing(runs: TrainingRuns, whole: str, phases: list[str]) -> None:
    for stop in (3, 4, 6, 8):
        assert runs.train("stopped-in-phases", 1, *phases, f"training.stop_after_steps={stop}") == 75
    assert runs.train("stopped-in-phases", 1, *phases) == 0
    assert runs.losses("stopped-in-phases") == runs.losses(whole)
    assert state_of(runs, "stopped-in-phases", 9)["ledger"] == state_of(runs, whole, 9)["ledger"]


def test_a_run_that_gets_phases_later_is_the_same_run(
    runs: TrainingRuns, no_irish: Path, whole: str, phases: list[str]
) -> None:
    """Four steps without phases, which are then the first of them."""
    plain = ["training.steps=4", "optimizer.warmup_steps=2", "checkpoint.every_steps=1"]
    assert runs.train("grows", 1, *plain) == 0
    assert (
        runs.train("grows", 1, "optimizer.schedule=constant", "phases.first.steps=4", "phases.more.steps=2")
        == 0
    )
    assert [entry["step"] for entry in runs.metrics("grows")] == list(range(1, 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["phases.first.steps=5"], "phases.first.steps = 5 is not what"),
        (["phases.first.global_batch_size=2"], "phases.first.global_batch_size = 2 is not what"),
        (["phases.second.sequence_length=32"], "phases.second.sequence_length = 32 is not what"),
        (["phases.second.new_text=[]"], "phases.second.new_text = [] is not what"),
        (["phases.second.learning_rate={join: restart, warmup_steps: 1}"], "phases.second.learning_rate = "),
        (
            ["phases.second.rope_scaling={factor: 2, original_sequence_length: 64}"],
            "phases.second.rope_scaling = ",
        ),
        (["phases.second.blend={blend}"], "was trained on another stream of samples"),
    ],
)
def test_a_phase_that_was_trained_on_is_not_changed(
    runs: TrainingRuns,
    phases: list[str],
    blend: Path,
    request: pytest.FixtureRequest,
    change: list[str],
    message: str,
) -> None:
    if not (runs.root / "changed-phases").exists():
        assert runs.train("changed-phases", 1, *phases, "training.stop_after_steps=6") == 75
    given = [item.replace("{blend}", str(blend)) for item in change]
    assert runs.train("changed-phases", 1, *phases, *given) in (1, 2)
    assert message in str(runs.events("changed-phases")[-1]["error"])


def test_later_phases_may_change_and_the_last_one_grow(runs: TrainingRuns, phases: list[str]) -> None:
    assert runs.train("later", 1, *phases, "training.stop_after_steps=6") == 75
    change = ["phases.second.steps=4", "phases.long.global_batch_size=4", "phases.end.steps=1"]
    assert runs.train("later", 1, *phases, *change) == 0
    assert [entry["tokens"] for entry in runs.metrics("later")] == [
        *(256 * step for step in range(1, 9)),
        8 * 256 + 512,
        8 * 256 + 1024,
        8 * 256 + 1280,
    ]


def test_phases_of_one_blend_that_go_on_are_the_run_without_phases(runs: TrainingRuns) -> None:
    assert runs.train("one-phase", 1, *WITHOUT_PHASES) == 0
    assert (
        runs.train("two-phases", 1, "optimizer.warmup_steps=2", "phases.a.steps=2", "phases.b.steps=4") == 0
    )
    # The tree of sources begins anew, so the same text may come in another order; the rates do not.
    assert [entry["lr"] for entry in runs.metrics("one-phase")] == [
        entry["lr"] for entry in runs.metrics("two-phases")
    ]
    assert runs.losses("one-phase")[:2] == runs.losses("two-phases")[:2]


def test_skipped_samples_count_for_where_the_next_phase_starts(blend: Path, phases: list[str]) -> None:
    config = load_run_config(str(SMALL), [*phases, f"data.blend={blend}"])
    plans = [BlendPlan.load(path) for path in (blend, blend, blend)]
    timeline = config.timeline.passing_over(2, 7)
    stream = RunStream(config, plans, timeline)
    expected = {**final_ordinals(stream.phases[0].stream.ledger(16 + 7)), "en": 0}
    assert stream.phases[1].start_ordinals == expected
    assert sum(entry.samples for entry in stream.ledger(4)) == 16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_alone_are_taken_from_a_checkpoint(runs: TrainingRuns, precision: str) -> None:
    common = ["optimizer.warmup_steps=0", f"precision={precision}", "validation.at_end=true"]
    assert runs.train(f"donor-{precision}", 1, *common, "training.steps=3") == 0
    donor = runs.root / f"donor-{precision}"
    start = [*common, "training.steps=1", "validation.at_start=true", f"initialize_from={donor}"]
    assert runs.train(f"heir-{precision}", 1, *start) == 0
    scores = [
        [json.loads(line) for line in (runs.root / name / "validation.jsonl").read_text().splitlines()]
        for name in (f"donor-{precision}", f"heir-{precision}")
    ]
    assert [score["loss"] for score in scores[0]] == [
        score["loss"] for score in scores[1] if score["step"] == 0
    ]
    # The update starts from these weights too, not from masters drawn anew.
    assert scores[1][-1]["loss"] < scores[0][-1]["loss"] + 0.2
    state = state_of(runs, f"heir-{precision}", 1)
    assert (state["step"], state["consumed_samples"]) == (1, 4)
