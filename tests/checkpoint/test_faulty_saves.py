"""Whatever befalls a save, training does not notice, the next save works, and older checkpoints stay as they are."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faulty_saves import (
    ALWAYS,
    KILL,
    STOP,
    VANISH,
    Fault,
    train_watching_plans,
    train_with_a_dead_disk,
    train_with_a_wrong_plan,
    train_with_faulty_saves,
)
from training_runs import TrainingRuns

from megatron_salamandra.checkpoint.completion import open_directory
from megatron_salamandra.checkpoint.disk import Disk, SaveError, Stage
from megatron_salamandra.checkpoint.save_plan import Shape, metadata_of
from megatron_salamandra.run_directory import CheckpointError, verify_checkpoint

WITHOUT_COPIES = [stage for stage in Stage if stage not in (Stage.LOCAL, Stage.UPLOAD)]
PLACES = [(0, stage) for stage in WITHOUT_COPIES] + [(1, Stage.TENSORS)]
SAVING = ["checkpoint.every_steps=1", "checkpoint.asynchronous=true", "checkpoint.keep_last=null"]
WARM_UP = "optimizer.warmup_steps=1"


def run_with(
    runs: TrainingRuns, name: str, faults: dict[int, Fault], *overrides: str, at_end: bool = False
) -> list[dict[str, object]]:
    """Train twice as many steps as there are places for faults, and return the failures that were told."""
    job = partial(train_with_faulty_saves, faults=faults, at_end=at_end)
    steps = f"training.steps={2 * len(PLACES)}"
    assert runs.run_job(job, name, 2, *SAVING, steps, *overrides) == 0
    return [event for event in runs.events(name) if event["event"] == "failure"]


def check_saved(runs: TrainingRuns, name: str, steps: list[int]) -> None:
    """These checkpoints and no others are there, intact, and nothing else is."""
    root = runs.root / name / "checkpoints"
    assert sorted(path.name for path in root.iterdir()) == [f"step-{step:08d}" for step in steps]
    for path in root.iterdir():
        verify_checkpoint(path)


@pytest.fixture(scope="module")
def undisturbed(runs: TrainingRuns) -> str:
    assert runs.train("undisturbed-saves", 2, *SAVING, f"training.steps={2 * len(PLACES)}") == 0
    return "undisturbed-saves"


def check_equal(runs: TrainingRuns, name: str, other: str, step: int) -> None:
    expected, found = runs.tensors(other, step), runs.tensors(name, step)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(
    ("what", "at_end"),
    [
        pytest.param((KILL,), False, id="killed-before"),
        pytest.param((KILL,), True, id="killed-after"),
        pytest.param((errno.EIO, errno.ENOSPC, errno.EROFS), False, id="refused"),
        pytest.param((VANISH,), False, id="vanished"),
    ],
)
def test_a_fault_in_any_stage_costs_its_save_and_nothing_else(
    runs: TrainingRuns, undisturbed: str, what: tuple[str | int, ...], at_end: bool
) -> None:
    """Every odd step has a fault in another place; every even one is saved."""
    name = f"faults-{what[0]}-{at_end}"
    faults: dict[int, Fault] = {
        2 * number + 1: (rank, stage.name, what[number % len(what)], ALWAYS)
        for number, (rank, stage) in enumerate(PLACES)
    }
    failures = run_with(runs, name, faults, "checkpoint.retry_seconds=0.1", at_end=at_end)
    # Once a checkpoint has its name, it is saved, whatever becomes of the process that gave it.
    named = [step for step, fault in faults.items() if at_end and fault[1] == Stage.PUBLISH.name]
    assert [failure["step"] for failure in failures] == [step for step in faults if step not in named]
    for failure in failures:
        rank, _, befallen, _ = faults[int(str(failure["step"]))]
        error = str(failure["error"])
        assert error.startswith(f"rank {rank} on {socket.gethostname()}: ")
        if isinstance(befallen, int):
            assert os.strerror(befallen) in error
            assert str(runs.root / name / "checkpoints") in error
        if befallen == KILL:
            assert "SIGKILL" in error
    last = 2 * len(PLACES)
    check_saved(runs, name, sorted({*range(2, last + 1, 2), *named}))
    check_equal(runs, name, undisturbed, last)


def test_a_run_resumes_from_the_save_after_one_that_died(runs: TrainingRuns, undisturbed: str) -> None:
    faults: dict[int, Fault] = {2: (1, "TENSORS", KILL, ALWAYS)}
    job = partial(train_with_faulty_saves, faults=faults, at_end=False)
    name, steps = "resumed-behind-a-kill", f"training.steps={2 * len(PLACES)}"
    assert runs.run_job(job, name, 2, *SAVING, steps, "training.stop_after_steps=3") == 75
    check_saved(runs, name, [1, 3])
    assert runs.train(name, 2, *SAVING, steps) == 0
    check_equal(runs, name, undisturbed, 2 * len(PLACES))


def test_what_the_disk_refuses_for_a_while_is_tried_again(runs: TrainingRuns, undisturbed: str) -> None:
    faults: dict[int, Fault] = {
        2 * number + 1: (rank, stage.name, errno.EIO, 2) for number, (rank, stage) in enumerate(PLACES)
    }
    assert run_with(runs, "again", faults, "checkpoint.retry_seconds=30") == []
    check_saved(runs, "again", list(range(1, 2 * len(PLACES) + 1)))
    saved = [event for event in runs.events("again") if event["event"] == "checkpoint"]
    retries = {event["step"]: event["retries"] for event in saved if "retries" in event}
    assert retries.keys() == faults.keys() and min(retries.values()) >= 2
    check_equal(runs, "again", undisturbed, 2 * len(PLACES))


def test_a_writer_that_does_not_end_is_given_up(runs: TrainingRuns, undisturbed: str) -> None:
    """As one that waits for a dead disk."""
    faults: dict[int, Fault] = {1: (1, "TENSORS", STOP, ALWAYS), 3: (0, "MANIFEST", STOP, ALWAYS)}
    failures = run_with(runs, "stopped", faults, "checkpoint.timeout_seconds=8")
    assert [failure["step"] for failure in failures] == [1, 3]
    assert "rank 1 on" in str(failures[0]["error"]) and "not done after 8 s" in str(failures[0]["error"])
    check_saved(runs, "stopped", [2, *range(4, 2 * len(PLACES) + 1)])


def test_training_asks_nothing_of_a_disk_that_was_found_dead(runs: TrainingRuns, tmp_path: Path) -> None:
    job = partial(train_with_a_dead_disk, step=2)
    overrides = [*SAVING, "training.steps=4", WARM_UP, f"checkpoint.local_dir={tmp_path}"]
    assert runs.run_job(job, "dead-disk", 2, *overrides) == 0
    failures = [event for event in runs.events("dead-disk") if event["event"] == "failure"]
    assert [failure["step"] for failure in failures] == [2]
    check_saved(runs, "dead-disk", [1, 3, 4])


@pytest.mark.parametrize("where", ["save_preprocess", "metadata_of"])
def test_a_plan_that_fails_on_one_rank_costs_its_save(runs: TrainingRuns, where: str) -> None:
    job, name = partial(train_with_a_wrong_plan, where=where), f"wrong-plan-{where}"
    assert runs.run_job(job, name, 2, *SAVING, WARM_UP, "training.steps=3") == 0
    failures = [event for event in runs.events(name) if event["event"] == "failure"]
    assert [failure["step"] for failure in failures] == [1]
    assert "rank 0: ValueError: a tensor would be written twice" in str(failures[0]["error"])
    check_saved(runs, name, [2, 3])


def test_what_the_writers_read_is_held_until_they_have_read_it(runs: TrainingRuns) -> None:
    assert runs.run_job(train_watching_plans, "held-plans", 1, *SAVING, WARM_UP, "training.steps=3") == 0
    check_saved(runs, "held-plans", [1, 2, 3])


def block(offset: tuple[int, ...], size: tuple[int, ...], whole: tuple[int, ...] = (4, 6)) -> Shape:
    return Shape("weight", offset, size, whole, torch.float32)


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        pytest.param([block((0, 0), (4, 6))], None, id="whole"),
        pytest.param([block((0, 0), (4, 3)), block((0, 3), (4, 3))], None, id="halves"),
        pytest.param(
            [block((0, 0), (1, 6)), block((1, 0), (3, 2)), block((1, 2), (3, 4))], None, id="pieces"
        ),
        pytest.param([block((), (), ())], None, id="scalar"),
        pytest.param([block((0, 0), (4, 6)), block((2, 3), (0, 3))], None, id="empty"),
        pytest.param([block((0, 0), (4, 3))], "12 elements would be saved of 24", id="missing"),
        pytest.param(
            [block((), (), ()), block((), (), ())], "2 elements would be saved of 1", id="scalar-twice"
        ),
        pytest.param([block((0, 0), (4, 3)), block((0, 0), (4, 3))], "overlap", id="twice"),
        pytest.param([block((0, 0), (4, 3)), block((0, 2), (4, 3))], "overlap", id="shifted"),
        pytest.param(
            [block((0, 0), (2, 6)), block((1, 0), (1, 6)), block((3, 0), (1, 6))], "overlap", id="rows"
        ),
        pytest.param([block((0, 0), (2, 6)), block((3, 0), (2, 6))], "sticks out", id="outside"),
    ],
)
def test_blocks_must_cover_a_tensor_once(blocks: list[Shape], error: str | None) -> None:
    for order in (blocks, blocks[::-1]):
        if error is None:
            metadata_of(order)
            continue
        with pytest.raises(CheckpointError, match=error):
            metadata_of(order)


@pytest.mark.parametrize(("free", "fits"), [(400, True), (399, False)])
def test_what_other_ranks_have_written_counts_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    place = tmp_path / ".partial-step-00000002" / "token"
    (place / "shards").mkdir(parents=True)
    (place / "shards" / "__1_0.distcp").write_bytes(bytes(600))
    (tmp_path / ".partial-step-00000001" / "token").mkdir(parents=True)
    (tmp_path / ".partial-step-00000001" / "token" / "stale").write_bytes(bytes(600))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    if fits:
        open_directory(place, 1000, Disk(0.0))
        return
    with pytest.raises(SaveError, match="are free"):
        open_directory(place, 1000, Disk(0.0))
