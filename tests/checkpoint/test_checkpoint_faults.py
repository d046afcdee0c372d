"""Saves that fail, and checkpoints that cannot be loaded."""

from __future__ import annotations

import shutil
import socket

import pytest
from rank_jobs import train_with_a_failing_disk
from training_runs import TrainingRuns

from megatron_salamandra.run_directory import RunDirectory

SHORT = ["training.steps=6", "optimizer.warmup_steps=2", "checkpoint.every_steps=2"]


@pytest.fixture(scope="module")
def trained(runs: TrainingRuns) -> str:
    assert runs.train("faults", 1, *SHORT, "checkpoint.keep_last=2") == 0
    return "faults"


@pytest.fixture
def copy_of_trained(runs: TrainingRuns, trained: str, request: pytest.FixtureRequest) -> str:
    name = f"faults-{request.node.name}"
    shutil.copytree(runs.root / trained, runs.root / name)
    shutil.rmtree(runs.checkpoint(name, 6))
    return name


def test_keep_last_prunes_while_training(runs: TrainingRuns, trained: str) -> None:
    kept = sorted(path.name for path in (runs.root / trained / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]


def test_truncated_shard_is_refused_before_anything_is_loaded(
    runs: TrainingRuns, copy_of_trained: str
) -> None:
    shard = next(runs.checkpoint(copy_of_trained, 4).glob("shards/__0_*.distcp"))
    with shard.open("r+b") as stream:
        stream.truncate(shard.stat().st_size // 2)
    assert runs.train(copy_of_trained, 1, *SHORT) == 1
    assert len(runs.metrics(copy_of_trained)) == 6  # nothing was dropped or added
    assert runs.events(copy_of_trained)[-1]["event"] == "failure"
    assert shard.name in runs.events(copy_of_trained)[-1]["error"]


def test_checkpoint_of_another_model_is_refused_with_the_key(
    runs: TrainingRuns, copy_of_trained: str
) -> None:
    before = (runs.root / copy_of_trained / "config.yaml").read_text()
    assert runs.train(copy_of_trained, 1, *SHORT, "model.ffn_hidden_size=192") == 1
    error = runs.events(copy_of_trained)[-1]["error"]
    assert "model.ffn_hidden_size is 176 there and 192 in this run" in error
    assert (runs.root / copy_of_trained / "config.yaml").read_text() == before


def test_another_seed_is_another_stream(runs: TrainingRuns, copy_of_trained: str) -> None:
    assert runs.train(copy_of_trained, 1, *SHORT, "training.seed=99") == 1
    assert "another stream of samples" in runs.events(copy_of_trained)[-1]["error"]


def test_another_batch_size_is_refused_with_the_right_one(runs: TrainingRuns, copy_of_trained: str) -> None:
    assert runs.train(copy_of_trained, 1, *SHORT, "training.global_batch_size=8") == 2
    error = runs.events(copy_of_trained)[-1]["error"]
    assert "training.global_batch_size = 8" in error
    assert "use 4" in error


def test_a_save_that_cannot_start_is_reported_and_training_goes_on(
    runs: TrainingRuns, copy_of_trained: str
) -> None:
    """A file stands where the save wants its directory, as after a mistaken copy."""
    blocker = runs.root / copy_of_trained / "checkpoints" / ".partial-step-00000006"
    blocker.write_text("in the way")
    assert runs.train(copy_of_trained, 1, *SHORT, "training.steps=8") == 0
    failures = [event for event in runs.events(copy_of_trained) if event["event"] == "failure"]
    assert [failure["step"] for failure in failures] == [6]
    assert len(runs.metrics(copy_of_trained)) == 8
    saved = [event["step"] for event in runs.events(copy_of_trained) if event["event"] == "checkpoint"]
    assert saved[-1] == 8
    assert not runs.checkpoint(copy_of_trained, 6).exists()


def test_full_disk_during_a_save_leaves_older_checkpoints_and_no_half_written_one(
    runs: TrainingRuns, copy_of_trained: str
) -> None:
    code = runs.train_on_a_full_disk(copy_of_trained, 1, *SHORT)
    assert code == 1  # its last step is not on disk
    failures = [event for event in runs.events(copy_of_trained) if event["event"] == "failure"]
    # Megatron-Core 0.19's writers pass on the class of the error alone, and print its text.
    assert "No space left on device" in failures[0]["error"] or "OSError" in failures[0]["error"]
    names = sorted(path.name for path in (runs.root / copy_of_trained / "checkpoints").iterdir())
    assert names == ["step-00000004"]


def test_the_failing_disk_of_one_rank_is_told_once_with_rank_and_host(runs: TrainingRuns) -> None:
    """In the background, where not every rank hears of the writers of others; the next save works."""
    overrides = [*SHORT, "checkpoint.asynchronous=true"]
    assert runs.run_job(train_with_a_failing_disk, "failing-disk", 2, *overrides) == 0
    (failure,) = [event for event in runs.events("failing-disk") if event["event"] == "failure"]
    assert failure["step"] == 2
    assert failure["error"].startswith(f"rank 1 on {socket.gethostname()}: ")
    assert "Input/output error" in failure["error"] or "OSError" in failure["error"]
    for rank in (0, 1):
        log = RunDirectory(runs.root / "failing-disk").rank_log(rank).read_text()
        assert log.count(f"NOT saved: {failure['error']}") == 1
    saved = [event for event in runs.events("failing-disk") if event["event"] == "checkpoint"]
    assert [event["step"] for event in saved] == [4, 6]
    assert all(0 < event["stall_seconds"] <= event["seconds"] for event in saved)
