"""Blocks of shards are compared with their checksums in one of their first readings, as fast as was allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_blend import write_blend
from unsummed import without_own_sum

from megatron_salamandra.data import BlockChecks, PhaseStart, SampleStream, block_checks, validation_sets
from megatron_salamandra.foundation.own_sums import with_own_sum
from megatron_salamandra.run_directory import RunDirectory
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.shards import IndexedShard, ShardManifest


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def read_all(plan: Path, checks: BlockChecks | None) -> None:
    stream = SampleStream(BlendPlan.load(plan), 64, 1, checks=checks)
    for sample in range(500):
        stream.sample(sample)


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_flipped_bit_is_found_when_its_block_is_first_read(tmp_path: Path, bit: int) -> None:
    plan = write_blend(tmp_path)
    read_all(plan, BlockChecks(1e6))
    flip(tmp_path / "en-train-00000.bin", 20_000, bit)
    read_all(plan, BlockChecks(0))  # as was asked for
    checks = BlockChecks(1e6)
    message = r"en-train-00000\.bin: block 0, bytes 0 to .* does not have its checksum.*\n.*data verify"
    for _ in range(2):  # it does not go away
        with pytest.raises(DataError, match=message):
            read_all(plan, checks)


def test_a_flipped_bit_of_an_index_or_of_held_out_text_is_found(tmp_path: Path) -> None:
    plan = write_blend(tmp_path)
    flip(tmp_path / "ca-train-00000.idx", 60)
    with pytest.raises(DataError, match=r"ca-train-00000\.idx: its checksum is not the one"):
        read_all(plan, BlockChecks(1e6))
    flip(tmp_path / "ca-train-00000.idx", 60)
    flip(tmp_path / "ga-validation-00000.bin", 3)
    with pytest.raises(DataError, match=r"ga-validation-00000\.bin: block 0"):
        for held_out in validation_sets(BlendPlan.load(plan), 64, checks=BlockChecks(1e6)):
            list(held_out.micro_batches(4, 0, 1))


def test_no_more_is_looked_at_than_was_allowed_and_each_block_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, now = BlendPlan.load(write_blend(tmp_path)), [0.0]
    monkeypatch.setattr(block_checks, "AHEAD_BYTES", 1)
    looked_at: list[tuple[Path, int]] = []
    check = block_checks._CheckedShard.check

    def noted(shard: block_checks._CheckedShard, block: int, file: object) -> None:
        looked_at.append((Path(str(shard.reference.path)), block))
        check(shard, block, file)  # type: ignore[arg-type]

    monkeypatch.setattr(block_checks._CheckedShard, "check", noted)
    streams = [
        SampleStream(plan, 64, 1, checks=BlockChecks(1e4, rank, 2, clock=lambda: now[0])) for rank in (0, 1)
    ]
    for sample in range(300):
        streams[0].sample(sample)
    assert len(looked_at) == 1  # then the clock stood
    for sample in range(3000):
        now[0] += 60
        streams[sample % 2].sample(sample)
    assert len(looked_at) == len(set(looked_at)) == 6  # index and block of three shards, dealt to both


def test_a_block_counts_as_looked_at_only_when_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer while a block is read must not hide the damage in it."""
    plan = write_blend(tmp_path)
    flip(tmp_path / "en-train-00000.bin", 20_000)
    check, failed = block_checks._CheckedShard.check, []

    def fail_once(shard: block_checks._CheckedShard, block: int, file: object) -> None:
        assert block not in shard.seen
        if "en-train" in str(shard.reference.path) and not failed:
            failed.append(block)
            raise OSError("no answer")
        check(shard, block, file)  # type: ignore[arg-type]

    monkeypatch.setattr(block_checks._CheckedShard, "check", fail_once)
    checks = BlockChecks(1e6)
    with pytest.raises(OSError, match="no answer"):
        read_all(plan, checks)
    with pytest.raises(DataError, match=r"en-train-00000\.bin: block 0"):
        read_all(plan, checks)


def test_any_flipped_bit_of_a_plan_or_a_start_is_refused(tmp_path: Path) -> None:
    plan = write_blend(tmp_path)
    start = PhaseStart(tmp_path / "before", "step-00000005", ("ca",), {"ca": 3, "en": 12_345})
    start.freeze(tmp_path)
    assert PhaseStart.load(tmp_path) == start
    lock = RunDirectory(tmp_path).ordinals_lock
    chance = np.random.default_rng(5)
    for path, load in ((plan, BlendPlan.parse), (lock, lambda path: PhaseStart.load(path.parent))):
        places = chance.integers(0, path.stat().st_size, 60).tolist()
        for place, bit in zip(places, chance.integers(0, 8, 60).tolist(), strict=True):
            flip(path, place, bit)
            with pytest.raises(DataError, match=path.name):
                load(path)
            flip(path, place, bit)
        load(path)


def test_a_plan_of_before_is_read_with_a_warning(tmp_path: Path) -> None:
    path = write_blend(tmp_path)
    plan = BlendPlan.load(path)
    path.write_bytes(without_own_sum(path.read_bytes()))
    with pytest.warns(DataWarning, match=r"no checksum of itself(?s:.*)salamandra data blend"):
        assert BlendPlan.load(path) == plan


def test_a_start_of_before_is_read_with_a_warning(tmp_path: Path) -> None:
    start = PhaseStart(tmp_path / "before", "step-00000005", ("ca",), {"ca": 3, "en": 12_345})
    start.freeze(tmp_path)
    lock = RunDirectory(tmp_path).ordinals_lock
    lock.write_bytes(without_own_sum(lock.read_bytes()))
    with pytest.warns(DataWarning, match=r"ordinals\.lock\.yaml: has no checksum of itself"):
        assert PhaseStart.load(tmp_path) == start


def test_what_was_cut_short_is_never_taken_for_one_of_before(tmp_path: Path) -> None:
    """Wherever it was cut: at the ends of lines it is still a whole YAML mapping."""
    plan = write_blend(tmp_path)
    PhaseStart(tmp_path / "before", "step-00000005", (), {"ca": 3, "en": 12_345}).freeze(tmp_path)
    lock = RunDirectory(tmp_path).ordinals_lock
    manifest = tmp_path / "ca-train-00000.json"
    readers: tuple[tuple[Path, Callable[[Path], object]], ...] = (
        (plan, BlendPlan.parse),
        (lock, lambda path: PhaseStart.load(path.parent)),
        (manifest, lambda path: ShardManifest.load(path.with_suffix(""))),
    )
    for path, load in readers:
        whole = path.read_bytes()
        ends = [place + 1 for place, byte in enumerate(whole[:-1]) if byte == ord("\n")]
        for length in (*ends, *range(0, len(whole) - 1, 37)):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match=path.name):
                load(path)
        path.write_bytes(whole)
        load(path)


@pytest.mark.parametrize("key", ["sha256", "idx_sha256", "bin_digest"])
@pytest.mark.parametrize("value", ["0" * 63, "0" * 65, "G" * 64, "", "A" * 64])
def test_a_digest_of_a_plan_has_64_hexadecimal_digits(tmp_path: Path, key: str, value: str) -> None:
    path = write_blend(tmp_path)
    raw = without_own_sum(path.read_bytes())
    path.write_bytes(with_own_sum(re.sub(rf"(?m)(^ *{key}: ).*$".encode(), rf"\g<1>'{value}'".encode(), raw)))
    with pytest.raises(DataError, match=rf"{key} = .* must be a SHA-256"):
        BlendPlan.parse(path)


@pytest.mark.parametrize(("key", "name"), [("idx_sha256", "idx_sha256"), ("sha256", "tokenizer")])
def test_a_digest_of_a_manifest_has_64_hexadecimal_digits(tmp_path: Path, key: str, name: str) -> None:
    write_blend(tmp_path)
    path = tmp_path / "ca-train-00000.json"
    raw = without_own_sum(path.read_bytes())
    path.write_bytes(with_own_sum(re.sub(rf'("{key}": )"\w*"'.encode(), rb'\1"12"', raw)))
    with pytest.raises(DataError, match=rf"{name}.* is not a SHA-256"):
        ShardManifest.load(path.with_suffix(""))


@pytest.mark.parametrize(
    "text", ["a: &a [1]\nb: *a\n", "[" * 5000, "- " * 5000, "n: " + "9" * 5000, "d: 2026-13-45"]
)
def test_yaml_that_no_plan_holds_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "blend.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"blend\.yaml"):
        BlendPlan.load(path)


def test_explaining_reads_no_index_that_is_another(tmp_path: Path) -> None:
    write_blend(tmp_path)
    shard = IndexedShard.open(tmp_path / "ca-train-00000")
    flip(tmp_path / "ca-train-00000.idx", 40)
    with pytest.raises(DataError, match=r"\.idx: its checksum"):
        shard.check_index("0" * 64)
    assert yaml.safe_load((tmp_path / "blend.yaml").read_text())["own_sha256"]
