"""A run that names an earlier one goes on with the text where that one stopped."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_blend import EOD, FACTORS, write_blend
from training_runs import TrainingRuns

from megatron_salamandra.cli import main
from megatron_salamandra.data import PhaseStart, RunRecord, SampleStream
from megatron_salamandra.data.simulation import Schedule, simulate
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from salamandra_data.blend_plan import BlendPlan, LanguageFactors, build_plan, reweighted
from salamandra_data.shards import ShardWriter, TokenizerIdentity

SHORT = ["training.steps=6", "optimizer.warmup_steps=2"]
LENGTH, SEED = 64, 1234


def state_of(runs: TrainingRuns, name: str, step: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((runs.checkpoint(name, step) / "state.json").read_text())
    return state


def next_ordinals(runs: TrainingRuns, name: str, step: int) -> dict[str, int]:
    return {entry["language"]: entry["next_ordinal"] for entry in state_of(runs, name, step)["ledger"]}


def error_of(runs: TrainingRuns, name: str) -> str:
    return str(runs.events(name)[-1]["error"])


@pytest.fixture(scope="module")
def first(runs: TrainingRuns) -> str:
    """A finished run of 24 samples."""
    assert runs.train("first-phase", 1, *SHORT) == 0
    return "first-phase"


@pytest.fixture(scope="module")
def without_irish(blend: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shards in other proportions."""
    factors = LanguageFactors({"en": Fraction(1), "ca": Fraction(1), "ga": Fraction(0)})
    path = tmp_path_factory.mktemp("second") / "blend.yaml"
    reweighted(BlendPlan.load(blend), factors).save(path)
    return path


@pytest.fixture(scope="module")
def second(runs: TrainingRuns, first: str, without_irish: Path) -> str:
    """A run on two ranks that goes on from a first one, is stopped, and resumes when that one is gone."""
    vanishing = runs.root / "vanishing"
    shutil.copytree(runs.root / first, vanishing)
    phase = [*SHORT, f"data.blend={without_irish}", f"data.continue_from={vanishing}"]
    assert runs.train("second-phase", 2, *phase, "training.stop_after_steps=3") == 75
    shutil.rmtree(vanishing)
    assert runs.train("second-phase", 2, *phase) == 0
    return "second-phase"


def test_each_language_goes_on_at_the_ordinal_the_earlier_run_reached(
    runs: TrainingRuns, first: str, second: str, without_irish: Path
) -> None:
    reached = next_ordinals(runs, first, 6)
    assert min(reached.values()) > 0
    expected = SampleStream(BlendPlan.load(without_irish), LENGTH, SEED, reached)
    for step in (3, 6):
        state = state_of(runs, second, step)
        assert state["stream"] == expected.fingerprint()
        assert next_ordinals(runs, second, step) == {
            entry.language: entry.next_ordinal for entry in expected.ledger(4 * step)
        }
    assert next_ordinals(runs, second, 6)["ca"] > reached["ca"]


def test_explain_tells_the_windows_a_later_phase_was_trained_on(
    runs: TrainingRuns, first: str, second: str, without_irish: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = SampleStream(BlendPlan.load(without_irish), LENGTH, SEED, next_ordinals(runs, first, 6))
    assert main(["explain", str(runs.root / second), "--step", "2"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sample ")]
    places = [expected.locate(sample) for sample in range(4, 8)]
    assert told == [
        f"sample {place.sample}: {place.language}, epoch {place.epoch}, window {place.window} "
        f"(ordinal {place.ordinal} of its language)"
        for place in places
    ]


def test_explain_does_not_guess_where_a_later_phase_started(
    runs: TrainingRuns, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.yaml", "blend.lock.yaml"):
        shutil.copy(runs.root / second / name, tmp_path)
    assert main(["explain", str(tmp_path), "--step", "1"]) == 1
    assert "ordinals.lock.yaml: missing" in capsys.readouterr().err


def test_a_language_that_a_phase_leaves_out_keeps_its_place_for_the_next(
    runs: TrainingRuns, first: str, second: str
) -> None:
    phase = ["training.steps=1", "optimizer.warmup_steps=0", f"data.continue_from={runs.root / second}"]
    assert runs.train("third-phase", 1, *phase) == 0
    start = PhaseStart.load(runs.root / "third-phase").start_ordinals
    assert start == {**next_ordinals(runs, second, 6), "ga": next_ordinals(runs, first, 6)["ga"]}
    assert RunRecord(runs.root / "third-phase").stream.ledger(0)[2].next_ordinal == start["ga"] > 0


def test_new_text_starts_at_its_first_window_and_a_checkpoint_may_be_named(
    runs: TrainingRuns, first: str
) -> None:
    checkpoint = runs.checkpoint(first, 6)
    phase = [f"data.continue_from={checkpoint}", "data.new_text=[en, ga]"]
    assert runs.train("new-text", 1, "training.steps=1", "optimizer.warmup_steps=0", *phase) == 0
    start = PhaseStart.load(runs.root / "new-text")
    assert start.start_ordinals == {"ca": next_ordinals(runs, first, 6)["ca"], "en": 0, "ga": 0}
    assert (start.continue_from, start.checkpoint, start.new_text) == (
        checkpoint,
        checkpoint.name,
        ("en", "ga"),
    )
    expected = SampleStream(RunRecord(runs.root / "new-text").plans[0], LENGTH, SEED, start.start_ordinals)
    assert state_of(runs, "new-text", 1)["stream"] == expected.fingerprint()


def test_a_later_phase_on_grown_text_is_what_the_simulation_said(
    runs: TrainingRuns, first: str, blend: Path, tmp_path: Path
) -> None:
    write_blend(tmp_path)
    tokenizer = BlendPlan.load(blend).tokenizer
    identity = TokenizerIdentity(tokenizer.sha256, tokenizer.vocab_size, tokenizer.eod_id)
    with ShardWriter(tmp_path / "ca-train-00001", language="ca", split="train", tokenizer=identity) as writer:
        writer.add_document([7] * 4000 + [EOD], utf8_bytes=4001)
    grown = tmp_path / "grown.yaml"
    build_plan([tmp_path], LanguageFactors(FACTORS), tokenizer=tmp_path / "tokenizer.model").save(grown)
    phase = [*SHORT, f"data.blend={grown}", f"data.continue_from={runs.root / first}"]
    assert runs.train("grown", 1, *phase) == 0
    schedule = tmp_path / "schedule.yaml"
    phases = [
        {"name": name, "plan": str(plan), "tokens": 6 * 4 * LENGTH}
        for name, plan in (("one", blend), ("two", grown))
    ]
    schedule.write_text(yaml.safe_dump({"sequence_length": LENGTH, "phases": phases}))
    simulated = simulate(Schedule.load(schedule))
    for name, result in zip((first, "grown"), simulated, strict=True):
        trained = {entry["language"]: entry for entry in state_of(runs, name, 6)["ledger"]}
        assert {point.language: (point.phase_tokens, point.epochs) for point in result.end} == {
            language: (entry["tokens"], entry["epochs"]) for language, entry in trained.items()
        }
    log = (runs.root / "grown" / "logs" / "rank-0000.log").read_text()
    assert "the text of ca is not that of" in log


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.continue_from={root}/nowhere"], "nowhere: no such directory"),
        (["data.continue_from={root}"], "holds no complete checkpoint"),
        (
            ["data.continue_from={first}", "training.seed=5"],
            "training.seed = 5 is not that of {first}, 1234",
        ),
        (
            ["data.continue_from={first}", "data.sequence_length=48"],
            "data.sequence_length = 48 is not that of {first}, 64",
        ),
        (["data.continue_from={first}", "data.new_text=[ca, xx]"], "data.new_text names xx, which"),
    ],
)
def test_an_earlier_phase_that_does_not_fit_is_refused(
    runs: TrainingRuns,
    first: str,
    request: pytest.FixtureRequest,
    overrides: list[str],
    expected: str,
) -> None:
    places = {"root": runs.root, "first": runs.root / first}
    name = f"refused-{request.node.callspec.indices['overrides']}"
    given = [override.format(**places) for override in overrides]
    assert runs.train(name, 2, *SHORT, *given) == EXIT_USAGE
    assert expected.format(**places) in error_of(runs, name)
    # Nothing is frozen, so the corrected command may use the same directory.
    assert not list((runs.root / name).glob("*.lock.yaml"))


def test_the_refused_length_shows_its_arithmetic(runs: TrainingRuns, first: str) -> None:
    reached = next_ordinals(runs, first, 6)
    language = max(reached, key=lambda name: reached[name])
    tokens = reached[language] * LENGTH
    overrides = [*SHORT, f"data.continue_from={runs.root / first}", "data.sequence_length=48"]
    assert runs.train("other-length", 1, *overrides) == 2
    assert (
        f"({language}: {reached[language]} * 64 = {tokens} = {tokens // 48} * 48 + {tokens % 48} tokens)"
        in error_of(runs, "other-length")
    )


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("second-phase", [], "data.continue_from = null is not what the run in"),
        ("second-phase", ["data.continue_from={first}"], "was started with: {vanishing}"),
        (
            "second-phase",
            ["data.continue_from={vanishing}", "data.new_text=[ca]"],
            "data.new_text = [ca] is not",
        ),
        ("first-phase", ["data.continue_from={second}"], "was started with: null"),
    ],
)
def test_a_resumed_run_goes_on_from_what_it_was_started_with(
    runs: TrainingRuns,
    second: str,
    without_irish: Path,
    name: str,
    overrides: list[str],
    expected: str,
) -> None:
    places = {
        "first": runs.root / "first-phase",
        "second": runs.root / second,
        "vanishing": runs.root / "vanishing",
    }
    given = [override.format(**places) for override in overrides]
    if name == second:
        given.append(f"data.blend={without_irish}")
    lock = runs.root / name / "ordinals.lock.yaml"
    frozen = lock.read_bytes() if lock.exists() else None
    assert runs.train(name, 1, *SHORT, *given) == 2
    assert expected.format(**places) in error_of(runs, name)
    assert (lock.read_bytes() if lock.exists() else None) == frozen


def test_a_checkpoint_in_a_directory_of_another_run_is_refused(
    runs: TrainingRuns, first: str, second: str, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(runs.root / first, mixed)
    shutil.rmtree(mixed / "checkpoints")
    shutil.copytree(runs.root / second / "checkpoints", mixed / "checkpoints")
    assert runs.train("from-mixed", 1, *SHORT, f"data.continue_from={mixed}") == EXIT_USAGE
    assert "was trained on another stream of samples" in error_of(runs, "from-mixed")
