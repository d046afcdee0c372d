"""Finding, verifying and pruning checkpoints, without torch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.checkpoint.retention import steps_to_delete
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.run_directory import (
    CheckpointError,
    complete_checkpoints,
    describe_files,
    latest_checkpoint,
    manifest,
    resolve_checkpoint,
    verify_checkpoint,
    write_manifest,
)


def make_checkpoint(root: Path, step: int) -> Path:
    directory = root / f"step-{step:08d}"
    (directory / "shards").mkdir(parents=True)
    (directory / "shards" / "__0_0.distcp").write_bytes(bytes(range(256)) * 40)
    (directory / "shards" / ".metadata").write_bytes(b"which tensor lies where")
    (directory / "state.json").write_text(json.dumps({"step": step}))
    (directory / "config.yaml").write_text("model: {}\n")
    write_manifest(directory, describe_files(directory, names_of_files(directory)))
    return directory


def names_of_files(directory: Path) -> list[str]:
    return [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]


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
    names = set(names_of_files(directory)) - {"manifest.json"}
    assert verify_checkpoint(directory) == sum((directory / name).stat().st_size for name in names)

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


def test_every_single_flipped_bit_is_found(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, 3)
    draw = random.Random(0)
    for path in [path for path in directory.rglob("*") if path.is_file()]:
        contents = path.read_bytes()
        for _ in range(100):
            flipped = bytearray(contents)
            flipped[draw.randrange(len(contents))] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match=path.name):
                verify_checkpoint(directory)
        path.write_bytes(contents)
    verify_checkpoint(directory)


def test_a_large_file_is_described_by_blocks_and_the_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(manifest, "_READ_BYTES", 1000)
    directory = make_checkpoint(tmp_path, 3)
    shard = directory / "shards" / "__0_0.distcp"
    contents = shard.read_bytes()
    described = describe_files(directory, ["shards/__0_0.distcp"])["shards/__0_0.distcp"]["xxh3_128"]
    assert described == [
        xxhash.xxh3_128_hexdigest(contents[start : start + 4096]) for start in range(0, len(contents), 4096)
    ]
    shard.write_bytes(contents[:5000] + b"?" + contents[5001:])
    with pytest.raises(CheckpointError, match="checksum in bytes 4096 to 8192"):
        verify_checkpoint(directory)


def test_files_that_nobody_listed_and_lists_that_name_nothing_are_refused(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, 3)
    (directory / "shards" / ".nfs0001").write_bytes(b"deleted, but open somewhere")
    verify_checkpoint(directory)
    extra = directory / "shards" / "__7_0.distcp"
    extra.write_bytes(b"of another checkpoint")
    with pytest.raises(CheckpointError, match="__7_0.distcp is not in the checkpoint's manifest"):
        verify_checkpoint(directory, checksums=False)
    extra.unlink()
    for files in ({}, describe_files(directory, ["state.json"])):
        write_manifest(directory, files)
        with pytest.raises(CheckpointError, match="does not list config.yaml"):
            verify_checkpoint(directory)
    write_manifest(directory, {"../../etc/passwd": {"bytes": 1, "xxh3_128": []}})
    with pytest.raises(CheckpointError, match="not as it was written"):
        verify_checkpoint(directory)


def test_checkpoints_of_version_0_1_are_verified_by_their_own_checksums(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, 3)
    files = {
        name: {
            "bytes": (directory / name).stat().st_size,
            "crc32": zlib.crc32((directory / name).read_bytes()),
        }
        for name in names_of_files(directory)
        if name != "manifest.json"
    }
    old = {"format": "salamandra-checkpoint-1", "files": files}
    (directory / "manifest.json").write_text(json.dumps(old, indent=1))
    verify_checkpoint(directory)
    shard = directory / "shards" / "__0_0.distcp"
    shard.write_bytes(b"?" + shard.read_bytes()[1:])
    with pytest.raises(CheckpointError, match="__0_0.distcp does not have its recorded checksum"):
        verify_checkpoint(directory)


@pytest.mark.parametrize(
    "contents", ["{", "[]", "null", '{"format": 3, "files": 4}', "[" * 100_000, "\udcff"]
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path: Path, contents: str) -> None:
    directory = make_checkpoint(tmp_path, 3)
    (directory / "manifest.json").write_bytes(contents.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match="manifest.json"):
        verify_checkpoint(directory)


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
