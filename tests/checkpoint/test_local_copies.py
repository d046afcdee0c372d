"""Saves that go to each node's disk first, and are uploaded from there."""

from __future__ import annotations

import errno
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from faulty_saves import ALWAYS, KILL, Fault, train_with_faulty_saves
from training_runs import TrainingRuns

from megatron_salamandra.checkpoint import LocalCopies
from megatron_salamandra.run_directory import RunDirectory, complete_checkpoints, step_of, verify_checkpoint

SAVING = [
    "training.steps=6",
    "checkpoint.every_steps=1",
    "checkpoint.asynchronous=true",
    "checkpoint.keep_last=null",
]


@pytest.fixture(scope="module")
def undisturbed(runs: TrainingRuns) -> str:
    assert runs.train("without-copies", 2, *SAVING) == 0
    return "without-copies"


def check_equal(runs: TrainingRuns, name: str, other: str) -> None:
    expected, found = runs.tensors(other, 6), runs.tensors(name, 6)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def local_steps(root: Path) -> list[int]:
    return [step_of(path) for path in complete_checkpoints(root)]


def copies_of(runs: TrainingRuns, name: str, local: Path) -> Path:
    return LocalCopies(local, runs.root / name, 1, 0).root


def log_of(runs: TrainingRuns, name: str, rank: int = 0) -> str:
    return RunDirectory(runs.root / name).rank_log(rank).read_text()


@pytest.mark.parametrize("damaged", [False, True], ids=["intact", "damaged"])
def test_a_resume_reads_the_local_copy_if_it_is_intact(
    runs: TrainingRuns, undisturbed: str, tmp_path: Path, damaged: bool
) -> None:
    name, copying = (
        f"with-copies-{damaged}",
        [*SAVING, f"checkpoint.local_dir={tmp_path}", "checkpoint.local_keep=2"],
    )
    assert runs.train(name, 2, *copying, "training.stop_after_steps=3") == 75
    root = copies_of(runs, name, tmp_path)
    assert local_steps(root) == [2, 3]
    assert sorted(path.name for path in root.iterdir()) == ["step-00000002", "step-00000003"]
    for step in (2, 3):
        copy, checkpoint = root / f"step-{step:08d}", runs.checkpoint(name, step)
        assert verify_checkpoint(copy) == verify_checkpoint(checkpoint)
        assert not [path for path in copy.rglob("*") if path.is_symlink()]
    if damaged:
        shard = next((root / "step-00000003" / "shards").glob("__1_*.distcp"))
        contents = bytearray(shard.read_bytes())
        contents[len(contents) // 2] ^= 1
        shard.write_bytes(contents)
    assert runs.train(name, 2, *copying) == 0
    used = (runs.checkpoint(name, 3) if damaged else root / "step-00000003").resolve()
    assert f"resumed from {used} at step 3" in log_of(runs, name)
    assert ("the local copy is not used" in log_of(runs, name)) == damaged
    assert not [event for event in runs.events(name) if event["event"] == "checkpoint_passed_over"]
    check_equal(runs, name, undisturbed)


def test_a_local_copy_whose_upload_is_gone_is_no_checkpoint(runs: TrainingRuns, tmp_path: Path) -> None:
    name, copying = "upload-gone", [*SAVING, f"checkpoint.local_dir={tmp_path}", "checkpoint.local_keep=9"]
    assert runs.train(name, 1, *copying, "training.stop_after_steps=3") == 75
    shutil.rmtree(runs.checkpoint(name, 3))
    assert runs.train(name, 1, *copying, "training.stop_after_steps=5") == 75
    assert "step-00000002 at step 2" in log_of(runs, name)


def test_local_disks_and_uploads_fail_without_harm(
    runs: TrainingRuns, undisturbed: str, tmp_path: Path
) -> None:
    faults: dict[int, Fault] = {
        1: (1, "LOCAL", errno.ENOSPC, ALWAYS),  # straight to the run directory
        2: (1, "UPLOAD", KILL, ALWAYS),
        3: (0, "UPLOAD", errno.EIO, 2),
        4: (0, "UPLOAD", errno.ENOSPC, ALWAYS),
    }
    job = partial(train_with_faulty_saves, faults=faults, at_end=False)
    copying = [*SAVING, f"checkpoint.local_dir={tmp_path}", "checkpoint.retry_seconds=1"]
    assert runs.run_job(job, "uploads", 2, *copying) == 0
    failures = [event for event in runs.events("uploads") if event["event"] == "failure"]
    assert [failure["step"] for failure in failures] == [2, 4]
    assert "rank 1 on" in failures[0]["error"] and "SIGKILL" in failures[0]["error"]
    assert "rank 0 on" in failures[1]["error"] and "uploading tensors failed" in failures[1]["error"]
    assert local_steps(runs.root / "uploads" / "checkpoints") == [1, 3, 5, 6]
    for path in complete_checkpoints(runs.root / "uploads" / "checkpoints"):
        verify_checkpoint(path)
    assert "tensors go straight to" in log_of(runs, "uploads", rank=1)
    assert local_steps(copies_of(runs, "uploads", tmp_path)) == [6]
    check_equal(runs, "uploads", undisturbed)


def test_a_node_links_the_tensors_of_others(runs: TrainingRuns, undisturbed: str, tmp_path: Path) -> None:
    """As after a save to which another node has written, too."""
    from megatron_salamandra.checkpoint.disk import Disk

    checkpoint = runs.checkpoint(undisturbed, 6)
    copies = LocalCopies(tmp_path, runs.root / undisturbed, 1, 0)
    save = checkpoint.parent / ".partial-step-00000006" / "token"
    mine = copies.place(save) / "shards"
    mine.mkdir(parents=True)
    for file in (checkpoint / "shards").glob("__0_*"):
        shutil.copy(file, mine)
    copies.keep(save, checkpoint, Disk(0.0))
    copy = copies.copy_of(checkpoint)
    assert copy is not None
    verify_checkpoint(copy)
    assert {path.name[:3] for path in copy.rglob("*") if path.is_symlink()} == {"__1"}
