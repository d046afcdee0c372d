"""Saves that go to each node's disk first, and are uploaded from there."""

from __future__ import annotations

import errno
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from faulty_saves import ALWAYS, KILL, Fault, train_with_faulty_saves
from rank_jobs import train_on_nodes
from training_runs import TrainingRuns

from megatron_salamandra.checkpoint import LocalCopies
from megatron_salamandra.run_directory import (
    DamagedCheckpointError,
    RunDirectory,
    complete_checkpoints,
    read_manifest,
    step_of,
    verify_checkpoint,
)

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
    manifest = read_manifest(copy)
    manifest.check_presence(linked=checkpoint)
    manifest.check_contents()
    assert {path.name[:3] for path in copy.rglob("*") if path.is_symlink()} == {"__1"}


@pytest.mark.parametrize("astray", ["another file", "another name", "state"])
def test_links_of_a_copy_lead_to_the_same_file_of_the_run_and_nowhere_else(
    runs: TrainingRuns, undisturbed: str, tmp_path: Path, astray: str
) -> None:
    checkpoint, copy = runs.checkpoint(undisturbed, 6), tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    shard = next((copy / "shards").glob("__1_0*"))
    outside = tmp_path / shard.name
    shutil.copy(shard, outside)
    link, target = {
        "another file": (shard, outside),
        "another name": (shard, next((checkpoint / "shards").glob("__0_0*"))),
        "state": (copy / "state.json", checkpoint / "state.json"),
    }[astray]
    link.unlink()
    link.symlink_to(target)
    with pytest.raises(DamagedCheckpointError, match="leads elsewhere"):
        read_manifest(copy).check_presence(linked=checkpoint)


def spoil(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


NODES = {
    "intact": "each reads its node's",
    "a copy is damaged": "one reads the run's",
    "a copy is missing": "one reads the run's",
    "hosts have changed places": "each reads its node's",
    "the run's is damaged": "passed over",
}


@pytest.mark.parametrize("case", NODES)
def test_nodes_read_nothing_that_nobody_has_proved(
    runs: TrainingRuns, undisturbed: str, tmp_path: Path, case: str
) -> None:
    """Two ranks, each the only one of its node. What a node's copy has no files for is read in the run directory."""
    name = f"nodes-{list(NODES).index(case)}"
    copying = [*SAVING, f"checkpoint.local_dir={tmp_path}", "checkpoint.local_keep=9"]
    nodes = [copies_of(runs, name, tmp_path / f"node-{rank}") for rank in (0, 1)]
    assert runs.run_job(train_on_nodes, name, 2, *copying, "training.stop_after_steps=3") == 75
    copies = [node / "step-00000003" for node in nodes]
    for rank, copy in enumerate(copies):
        links = {path.name[:3] for path in copy.rglob("*") if path.is_symlink()}
        assert links == {f"__{1 - rank}"}
    checkpoint = runs.checkpoint(name, 3)
    used: list[Path] = list(copies)
    if case == "a copy is damaged":
        spoil(next((copies[1] / "shards").glob("__1_*")))
        used[1] = checkpoint
    elif case == "a copy is missing":
        shutil.rmtree(copies[1])
        used[1] = checkpoint
    elif case == "hosts have changed places":
        for source, target in ((0, "other"), (1, "node-0"), ("other", "node-1")):
            source = f"node-{source}" if isinstance(source, int) else source
            (tmp_path / source).rename(tmp_path / target)
    elif case == "the run's is damaged":  # in a file of which the copy of its writer is intact
        spoil(next((checkpoint / "shards").glob("__1_*")))
        used = [node / "step-00000002" for node in nodes]
    assert runs.run_job(train_on_nodes, name, 2, *copying) == 0
    for rank, directory in enumerate(used):
        assert f"resumed from {directory.resolve()} at step" in log_of(runs, name, rank)
    passed_over = [event for event in runs.events(name) if event["event"] == "checkpoint_passed_over"]
    assert bool(passed_over) == (NODES[case] == "passed over")
    check_equal(runs, name, undisturbed)


def test_copies_of_steps_that_come_again_make_way(runs: TrainingRuns, tmp_path: Path) -> None:
    """The run went back, as after a roll-back; what a kill left of a copy is in the way as well."""
    name, copying = "back", [*SAVING, f"checkpoint.local_dir={tmp_path}", "checkpoint.local_keep=2"]
    assert runs.train(name, 1, *copying, "training.stop_after_steps=5") == 75
    root = copies_of(runs, name, tmp_path)
    assert local_steps(root) == [4, 5]
    for step in (3, 4, 5):
        shutil.rmtree(runs.checkpoint(name, step))
    torso = root / "step-00000003"
    shutil.copytree(root / "step-00000004", torso)
    (torso / "manifest.json").unlink()
    assert runs.train(name, 1, *copying, "training.stop_after_steps=3") == 75
    assert local_steps(root) == [3]
    verify_checkpoint(torso)
    assert runs.train(name, 1, *copying, "training.stop_after_steps=4") == 75
    assert f"resumed from {torso.resolve()} at step 3" in log_of(runs, name)
    assert local_steps(root) == [3, 4]


def test_a_local_file_that_is_cut_short_is_not_kept(
    runs: TrainingRuns, undisturbed: str, tmp_path: Path
) -> None:
    from megatron_salamandra.checkpoint.disk import Disk

    checkpoint = runs.checkpoint(undisturbed, 6)
    copies = LocalCopies(tmp_path, runs.root / undisturbed, 1, 0)
    save = checkpoint.parent / ".partial-step-00000006" / "token"
    place = copies.place(save)
    shutil.copytree(checkpoint, place)
    cut = next((place / "shards").glob("__1_*"))
    for file in (cut, place / "state.json"):
        file.write_bytes(file.read_bytes()[:-7])
    copies.keep(save, checkpoint, Disk(0.0))
    copy = copies.copy_of(checkpoint)
    assert copy is not None
    assert [path.name for path in copy.rglob("*") if path.is_symlink()] == [cut.name]
    manifest = read_manifest(copy)
    manifest.check_presence(linked=checkpoint)
    manifest.check_contents()
    copies.keep(save, checkpoint, Disk(0.0))  # nothing was written here
    shutil.copytree(checkpoint, place)
    copies.drop_tensors(save, 1)
    assert {path.name[:3] for path in (place / "shards").glob("*.distcp")} == {"__0"}
