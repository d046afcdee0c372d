"""What a run writes, how it ends, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from rank_jobs import SMALL_CONFIG, decay_groups
from rank_pool import RankPool
from synthetic_blend import LANGUAGES, write_blend
from training_runs import TrainingRuns

from salamandra_data.blend_plan import BlendPlan

SHORT = ["training.steps=6", "optimizer.warmup_steps=2"]


@pytest.fixture(scope="module")
def logged(runs: TrainingRuns) -> str:
    overrides = [*SHORT, "logging.tensorboard=true", "logging.console_every_steps=3"]
    validation = ["validation.at_start=true", "validation.at_end=true", "validation.every_steps=3"]
    assert runs.train("logged", 2, *overrides, *validation) == 0
    return "logged"


def validation_objects(runs: TrainingRuns, name: str) -> list[dict[str, float]]:
    lines = (runs.root / name / "validation.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_metrics_have_one_object_per_step_with_the_promised_keys(runs: TrainingRuns, logged: str) -> None:
    metrics = runs.metrics(logged)
    assert [entry["step"] for entry in metrics] == [1, 2, 3, 4, 5, 6]
    promised = {"step", "loss", "grad_norm", "lr", "tokens", "tokens_per_second"}
    assert all(promised <= entry.keys() for entry in metrics)
    assert [entry["tokens"] for entry in metrics] == [256 * step for step in range(1, 7)]
    assert {"data", "forward_backward", "decide", "optimizer", "step"} == metrics[0]["seconds"].keys()


def test_only_waiting_for_batches_counts_as_data_time(runs: TrainingRuns) -> None:
    assert runs.train_by_a_clock("clocked", 1, "training.steps=2", "optimizer.warmup_steps=0") == 0
    assert [entry["seconds"] for entry in runs.metrics("clocked")] == [
        {"data": 1.0, "forward_backward": 110.0, "decide": 0.0, "optimizer": 0.0, "step": 111.0}
    ] * 2


def test_tokens_are_accounted_for_by_language(runs: TrainingRuns, logged: str) -> None:
    ledger = runs.metrics(logged)[-1]["languages"]
    assert ledger.keys() == LANGUAGES.keys()
    assert sum(entry["tokens"] for entry in ledger.values()) == 6 * 256
    state = json.loads((runs.checkpoint(logged, 6) / "state.json").read_text())
    assert {entry["language"]: entry["tokens"] for entry in state["ledger"]} == {
        language: entry["tokens"] for language, entry in ledger.items()
    }


def test_validation_reports_every_language_and_both_averages(runs: TrainingRuns, logged: str) -> None:
    scores = validation_objects(runs, logged)
    assert [entry["step"] for entry in scores] == [step for step in (0, 3, 6) for _ in range(5)]
    last = {entry["language"]: entry for entry in scores[-5:]}
    assert last.keys() == LANGUAGES.keys() | {"macro", "micro"}
    languages = [last[language] for language in LANGUAGES]
    tokens = sum(entry["tokens"] for entry in languages)
    assert last["macro"]["loss"] == pytest.approx(np.mean([entry["loss"] for entry in languages]))
    assert last["micro"]["loss"] == pytest.approx(
        sum(entry["loss"] * entry["tokens"] for entry in languages) / tokens
    )
    for entry in languages:
        assert entry["perplexity"] == pytest.approx(math.exp(entry["loss"]))
        # Every document of the synthetic shards has three bytes per token.
        assert entry["bits_per_byte"] == pytest.approx(entry["loss"] / (3 * math.log(2)))
    # Before training every id is equally likely.
    assert scores[0]["loss"] == pytest.approx(math.log(256), rel=0.05)


@pytest.mark.parametrize(
    ("ranks", "overrides"),
    [
        (1, ["training.micro_batch_size=4"]),
        (2, ["parallel.tensor=2", "parallel.sequence=true"]),
        (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    ],
    ids=["micro-batch-4", "TP2+SP", "PP2xVPP2"],
)
def test_validation_does_not_depend_on_the_layout(
    runs: TrainingRuns, logged: str, request: pytest.FixtureRequest, ranks: int, overrides: list[str]
) -> None:
    name = f"validated-{request.node.callspec.id}"
    once = ["training.steps=1", "optimizer.warmup_steps=0", "validation.at_start=true"]
    assert runs.train(name, ranks, *overrides, *once) == 0
    expected = validation_objects(runs, logged)[:5]
    for found, entry in zip(validation_objects(runs, name), expected, strict=True):
        assert (found["language"], found["tokens"]) == (entry["language"], entry["tokens"])
        assert found["loss"] == pytest.approx(entry["loss"], rel=1e-5)


def test_a_run_directory_says_how_it_was_made(runs: TrainingRuns, logged: str) -> None:
    directory = runs.root / logged
    assert yaml.safe_load((directory / "config.yaml").read_text())["training"]["steps"] == 6
    environment = json.loads((directory / "environment.json").read_text())
    assert environment["layout"] == "TP1 x PP1 x DP2 (2 ranks)"
    assert environment["packages"]["megatron-core"]
    assert sorted(path.name for path in (directory / "logs").iterdir()) == ["rank-0000.log", "rank-0001.log"]
    assert [event["event"] for event in runs.events(logged)] == ["start", "checkpoint", "end"]
    assert list((directory / "tensorboard").glob("events.out.tfevents.*"))
    assert "finished" in (directory / "report.html").read_text()


def test_tensorboard_holds_the_same_numbers(runs: TrainingRuns, logged: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(runs.root / logged / "tensorboard"))
    accumulator.Reload()
    losses = [point.value for point in accumulator.Scalars("train/loss")]
    assert losses == pytest.approx(runs.losses(logged))
    assert len(accumulator.Scalars("validation_bits_per_byte/ga")) == 3


def train_command(*overrides: str, ranks: int = 1) -> list[str]:
    return [
        *(sys.executable, "-m", "megatron_salamandra.cli", "train", str(SMALL_CONFIG)),
        *(f"--ranks={ranks}", *overrides),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_75(blend: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = train_command(
        f"data.blend={blend}",
        f"run_dir={tmp_path}",
        "training.steps=100000",
        "optimizer.warmup_steps=10",
        ranks=2,
    )
    metrics = tmp_path / "metrics.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=120) == 75
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (tmp_path / "checkpoints" / f"step-{last:08d}" / "manifest.json").exists()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1] == {**events[-1], "event": "end", "step": last, "exit_code": 75}
    assert number.name in next(event["reason"] for event in events if event["event"] == "stop")


def run_train(*overrides: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        train_command(*overrides, ranks=ranks),
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    ("overrides", "ranks", "code", "expected"),
    [
        (["training.seeed=1"], 1, 2, "training.seed"),
        (["training.seed=first"], 1, 2, "training.seed"),
        (["parallel.tensor=3"], 3, 2, "query_groups = 2"),
        (["parallel.tensor=2"], 3, 2, "needs a multiple of 2 ranks"),
        (["data.blend=nowhere.yaml"], 2, 2, "nowhere.yaml"),
        (["model.vocab_size=128"], 1, 2, "raise model.vocab_size to at least 256"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    blend: Path, tmp_path: Path, overrides: list[str], ranks: int, code: int, expected: str
) -> None:
    finished = run_train(f"data.blend={blend}", f"run_dir={tmp_path / 'run'}", *overrides, ranks=ranks)
    assert finished.returncode == code
    assert expected in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_changed_blend_is_refused_on_resume(runs: TrainingRuns, tmp_path: Path) -> None:
    blend = write_blend(tmp_path / "shards")
    assert runs.train("changed", 1, *SHORT, f"data.blend={blend}", "training.stop_after_steps=3") == 75
    other = write_blend(tmp_path / "other", seed=8)
    assert runs.train("changed", 1, *SHORT, f"data.blend={other}") == 1
    assert "blend.lock.yaml" in runs.events("changed")[-1]["error"]
    assert len(runs.metrics("changed")) == 3


def test_a_start_that_is_refused_leaves_the_directory_free(runs: TrainingRuns, tmp_path: Path) -> None:
    """Another sequence length, blend or phase before is the remedy, so nothing may be frozen."""
    assert runs.train("donor-of-places", 1, *SHORT) == 0
    refused = f"callbacks={json.dumps([{'path': 'sample_callbacks:Refuses', 'options': {'ranks': [0]}}])}"
    before = f"data.continue_from={runs.root / 'donor-of-places'}"
    for override, expected in (
        ("data.sequence_length=4096", "fewer than one window of 4096 + 1"),
        (refused, "a shard is damaged"),  # when model and data are there
    ):
        assert runs.train("refused", 1, *SHORT, override, *([before] if override == refused else [])) == 1
        assert expected in runs.events("refused")[-1]["error"]
        left = {path.name for path in (runs.root / "refused").iterdir()}
        assert left <= {"events.jsonl", "logs", "control", "validation.jsonl"}
    assert runs.train("refused", 1, *SHORT, f"data.blend={write_blend(tmp_path, seed=8)}") == 0
    assert not (runs.root / "refused" / "ordinals.lock.yaml").exists()


def test_moved_data_is_the_same_data(runs: TrainingRuns, tmp_path: Path) -> None:
    blend = write_blend(tmp_path / "before")
    assert runs.train("moved", 1, *SHORT, f"data.blend={blend}", "training.stop_after_steps=3") == 75
    (tmp_path / "before").rename(tmp_path / "after")
    assert runs.train("moved", 1, *SHORT, f"data.blend={tmp_path / 'after' / 'blend.yaml'}") == 0
    assert len(runs.metrics("moved")) == 6


def test_a_truncated_shard_is_refused_by_name(runs: TrainingRuns, tmp_path: Path) -> None:
    blend = write_blend(tmp_path / "shards")
    shard = tmp_path / "shards" / "en-train-00000.bin"
    os.truncate(shard, shard.stat().st_size - 2)
    assert runs.train("truncated", 1, *SHORT, f"data.blend={blend}") == 1
    assert "en-train-00000" in runs.events("truncated")[-1]["error"]


def test_a_loss_that_is_no_number_ends_the_run_before_the_update(runs: TrainingRuns) -> None:
    """And a save that was under way is completed: it is from before the trouble."""
    saving = ["checkpoint.every_steps=1", "checkpoint.asynchronous=true", "guard.on_nonfinite=fail"]
    assert runs.train_until_nan("nan-loss", 2, *SHORT, *saving) == 1
    failures = [event for event in runs.events("nan-loss") if event["event"] == "failure"]
    assert "the loss of step 3 is nan; nothing was updated" in failures[0]["error"]
    assert [entry["step"] for entry in runs.metrics("nan-loss")] == [1, 2]
    assert runs.checkpoint("nan-loss", 2).exists()


def test_a_gradient_that_is_no_number_ends_the_run(runs: TrainingRuns) -> None:
    hopeless = ["optimizer.lr=1.0e30", "training.grad_clip=0", "guard.on_nonfinite=fail"]
    assert runs.train("nan-gradient", 1, *SHORT, *hopeless) == 1
    assert "the gradient norm of step 2 is nan" in runs.events("nan-gradient")[-1]["error"]
    assert len(runs.metrics("nan-gradient")) == 1


def test_z_loss_is_part_of_training_and_not_of_validation(runs: TrainingRuns, logged: str) -> None:
    overrides = ["training.steps=1", "optimizer.warmup_steps=0", "training.z_loss=0.01"]
    assert runs.train("z-loss", 1, *overrides, "validation.at_start=true") == 0
    expected = validation_objects(runs, logged)[:5]
    for found, entry in zip(validation_objects(runs, "z-loss"), expected, strict=True):
        assert found["loss"] == pytest.approx(entry["loss"], rel=1e-5)
    # log(256) squared times 0.01 is 0.3 before anything is learnt.
    assert runs.losses("z-loss")[0] > runs.losses(logged)[0] + 0.2


def test_norms_are_not_decayed_and_everything_else_is(rank_pool: RankPool) -> None:
    decayed, spared = rank_pool.run(1, decay_groups, [])[0]
    assert len(spared) == 2 * 4 + 1
    assert all("norm" in name for name in spared)
    assert len(decayed) == 4 * 4 + 2
    assert not any("norm" in name for name in decayed)


def test_other_held_out_text_is_allowed_on_resume_and_named(runs: TrainingRuns, tmp_path: Path) -> None:
    """The stream of samples is the same to the bit."""
    blend = write_blend(tmp_path / "shards")
    without = tmp_path / "shards" / "without.yaml"
    plan = BlendPlan.load(blend)
    bare = (dataclasses.replace(source, validation_shards=()) for source in plan.sources)
    dataclasses.replace(plan, sources=tuple(bare)).save(without)
    assert runs.train("held-out", 1, *SHORT, f"data.blend={without}", "training.stop_after_steps=3") == 75
    assert runs.train("held-out", 1, *SHORT, f"data.blend={blend}", "validation.at_end=true") == 0
    log = (runs.root / "held-out" / "logs" / "rank-0000.log").read_text()
    assert "holds out other text" in log
    assert "the validation shards of en (none before" in log
    assert {entry["step"] for entry in validation_objects(runs, "held-out")} == {6}
