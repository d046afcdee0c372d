"""Finding, verifying and pruning checkpoints, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.checkpoint.retention import steps_to_delete
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.run_directory import (
    CheckpointError,
    complete_checkpoints,
    describe_files,
    latest_checkpoint,
    resolve_checkpoint,
    verify_checkpoint,
    write_manifest,
)


def make_checkpoint(root: Path, step: int) -> Path:
    directory = root / f"step-{step:08d}"
    (directory / "shards").mkdir(parents=True)
    (directory / "shards" / "__0_0.distcp").write_bytes(bytes(range(256)) * 40)
    (directory / "state.json").write_text(json.dumps({"step": step}))
    write_manifest(directory, describe_files(directory, ["shards/__0_0.distcp", "state.json"]))
    return directory


def test_only_complete_directories_count(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 5)
    newest = make_checkpoint(tmp_path, 1000)
    (tmp_path / "step-00002000" / "shards").mkdir(parents=True)  # died before its manifest
    (tmp_path / ".partial-step-00003000").mkdir()
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-00000005", "step-00001000"]
    assert latest_checkpoint(tmp_path) == newest
    assert latest_checkpoint(tmp_path / "absent") is None


def test_a_run_its_checkpoints_and_a_step_all_name_a_checkpoint(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "checkpoints", 7)
    assert resolve_checkpoint(tmp_path) == directory
    assert resolve_checkpoint(tmp_path / "checkpoints") == directory
    assert resolve_checkpoint(directory) == directory


@pytest.mark.parametrize("name", ["absent", "empty", "step-00000009"])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, name: str) -> None:
    if name != "absent":
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=name):
        resolve_checkpoint(tmp_path / name)


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, 3)
    shard = directory / "shards" / "__0_0.distcp"
    assert verify_checkpoint(directory) == sum(
        path.stat().st_size for path in (shard, directory / "state.json")
    )

    contents = bytearray(shard.read_bytes())
    contents[5000] ^= 1
    shard.write_bytes(contents)
    verify_checkpoint(directory, checksums=False)
    with pytest.raises(CheckpointError, match="__0_0.distcp does not have its recorded checksum"):
        verify_checkpoint(directory)

    shard.write_bytes(contents[:-1])
    with pytest.raises(CheckpointError, match="__0_0.distcp has 10239 bytes instead of 10240"):
        verify_checkpoint(directory, checksums=False)

    shard.unlink()
    with pytest.raises(CheckpointError, match="__0_0.distcp is missing"):
        verify_checkpoint(directory, checksums=False)


def test_an_unreadable_manifest_is_an_error(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, 3)
    (directory / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="manifest.json cannot be read"):
        verify_checkpoint(directory)


@given(
    st.sets(st.integers(1, 1000)),
    st.integers(1, 5),
    st.none() | st.integers(1, 100),
)
def test_retention_keeps_the_newest_and_the_milestones(
    steps: set[int], keep_last: int, every: int | None
) -> None:
    policy = CheckpointSection(keep_last=keep_last, keep_every_steps=every)
    kept = steps - set(steps_to_delete(list(steps), policy))
    assert set(sorted(steps)[-keep_last:]) <= kept
    if every:
        assert {step for step in steps if step % every == 0} <= kept
        assert all(step % every == 0 for step in kept - set(sorted(steps)[-keep_last:]))
    else:
        assert len(kept) == min(len(steps), keep_last)


def test_keep_last_null_keeps_everything() -> None:
    assert steps_to_delete([1, 2, 3], CheckpointSection(keep_last=None)) == []


def test_listing_does_not_import_torch() -> None:
    script = "import sys, megatron_salamandra.run_directory; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
