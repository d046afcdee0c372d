"""Verify names the file and what is wrong; inspect shows what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenize_job import tokenize_job
from unsummed import without_own_sum

from megatron_salamandra.foundation.atomic_files import WriteError
from megatron_salamandra.foundation.own_sums import drop_own_sum, with_own_sum
from salamandra_data.blend_plan import LanguageFactors, build_plan, verify
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import (
    IndexedShard,
    ShardManifest,
    ShardWriter,
    TokenizerIdentity,
    document_text,
    shard_table,
    shard_writer,
)
from salamandra_data.storage import as_location
from salamandra_data.tokenization import tokenize_documents

IDENTITY = TokenizerIdentity("0" * 64, vocab_size=100, eod_id=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Path:
    """Two small shards of real tokens."""
    directory = tmp_path_factory.mktemp("prepared")
    texts = ["bona tarda a tothom", "", "dos\nlínies", "tres"]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    for language in ("ca", "oc"):
        (directory / "in.jsonl").write_text(lines.replace("tres", f"tres {language}"))
        tokenize_documents(
            tokenize_job(
                [directory / "in.jsonl"],
                small_tokenizer,
                directory / "shards",
                DocumentKeys(language=language),
            )
        )
    return directory / "shards"


@pytest.fixture
def shards(prepared: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(prepared, tmp_path / "shards"))


def edit(path: Path, position: int, new: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(position)
        stream.write(new)


def flip(path: Path, position: int, bits: int) -> None:
    edit(path, position, bytes((path.read_bytes()[position] ^ bits,)))


def edit_manifest(path: Path, **changes: object) -> None:
    values = {**json.loads(path.read_text()), **changes}
    drop_own_sum(values)
    path.write_bytes(with_own_sum((json.dumps(values, indent=2) + "\n").encode()))


def test_untouched_shards_and_plans_are_well(shards: Path, tmp_path: Path) -> None:
    build_plan([shards], LanguageFactors({})).save(tmp_path / "blend.yaml")
    report = verify(
        [shards, shards / "ca-train-00000", shards / "oc-train-00000.idx", tmp_path / "blend.yaml"]
    )
    assert report.problems == []
    assert report.shards == 2
    assert list(report.lines())[-1].endswith("no problem")


@pytest.mark.parametrize("endings", [(".bin", ".idx"), (".idx",), (".idx", ".json"), (".bin",)])
def test_what_is_left_of_a_shard_is_a_problem_and_the_others_are_checked(
    shards: Path, endings: tuple[str, ...]
) -> None:
    for ending in endings:
        (shards / f"ca-train-00000{ending}").unlink()
    report = verify([shards])
    assert report.shards == 2 and report.tokens > 0
    assert len(report.problems) == 1
    assert re.search(r"ca-train-00000: incomplete: .* missing", report.problems[0])


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped bit in .bin": (
        lambda prefix: flip(prefix.with_suffix(".bin"), 5, 0x01),
        r"\.bin: bytes 0 to .* damaged",
    ),
    "flipped bit in lengths": (
        lambda prefix: edit(prefix.with_suffix(".idx"), 34, b"\xff"),
        r"\.idx: sequence 1 starts",
    ),
    "zero length": (
        lambda prefix: edit(prefix.with_suffix(".idx"), 34, bytes(4)),
        r"\.idx: sequence 0 has length 0",
    ),
    "document index": (
        lambda prefix: edit(prefix.with_suffix(".idx"), 34 + 12 * 3 + 8, struct.pack("<q", 9)),
        r"\.idx: document 1 ends before it begins",
    ),
    "wrong magic": (lambda prefix: edit(prefix.with_suffix(".idx"), 0, b"X"), r"\.idx: not a Megatron index"),
    "wrong version": (lambda prefix: edit(prefix.with_suffix(".idx"), 9, b"\x02"), r"\.idx: index version 2"),
    "wrong dtype": (lambda prefix: edit(prefix.with_suffix(".idx"), 17, b"\x04"), r"\.bin: .* truncated"),
    "unknown dtype": (lambda prefix: edit(prefix.with_suffix(".idx"), 17, b"\x63"), r"\.idx: dtype code 99"),
    "float dtype": (lambda prefix: edit(prefix.with_suffix(".idx"), 17, b"\x07"), r"\.idx: dtype code 7"),
    "truncated .bin": (
        lambda prefix: prefix.with_suffix(".bin").write_bytes(b"12"),
        r"\.bin: 2 bytes.* truncated",
    ),
    "longer .bin": (
        lambda prefix: prefix.with_suffix(".bin").write_bytes(b"1" * 9999),
        r"\.bin: .* too long",
    ),
    "truncated .idx": (
        lambda prefix: prefix.with_suffix(".idx").write_bytes(b"MM"),
        r"\.idx: 2 bytes, shorter",
    ),
    "missing .bin": (lambda prefix: prefix.with_suffix(".bin").unlink(), r"\.bin missing"),
    "manifest not JSON": (
        lambda prefix: prefix.with_suffix(".json").write_text("{"),
        r"\.json: cannot be read",
    ),
    "manifest of another format": (
        lambda prefix: edit_manifest(prefix.with_suffix(".json"), format="x"),
        r"\.json: format is 'x'",
    ),
    "unknown key": (
        lambda prefix: edit_manifest(prefix.with_suffix(".json"), extra=1),
        r"unknown key 'extra'",
    ),
    "count": (
        lambda prefix: edit_manifest(prefix.with_suffix(".json"), tokens=1),
        r"\.json: tokens = 1, but",
    ),
    "no count": (
        lambda prefix: edit_manifest(prefix.with_suffix(".json"), tokens="1"),
        r"tokens = '1' is not a count",
    ),
    "idx checksum": (
        lambda prefix: edit_manifest(prefix.with_suffix(".json"), idx_sha256="0" * 64),
        r"\.idx: its checksum",
    ),
    "no bin checksum": (
        lambda prefix: edit_manifest(prefix.with_suffix(".json"), bin_sha256=[]),
        r"first part of",
    ),
    "tokenizer": (
        lambda prefix: (prefix.parent / "tokenizer.model").write_bytes(b"x") and None,
        r"tokenizer\.model: is not",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(shards: Path, kind: str) -> None:
    inflict, message = DAMAGE[kind]
    inflict(shards / "ca-train-00000")
    report = verify([shards])
    assert len(report.problems) == (2 if kind == "tokenizer" else 1)

    assert re.search(message, report.problems[0]), report.problems[0]


def test_a_lost_shard_is_told_by_the_others(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path
) -> None:
    out = tmp_path / "shards"
    tokenize_documents(tokenize_job(corpus_files, small_tokenizer, out, shard_tokens=2_500))
    names = sorted(path.stem for path in out.glob("ca-train-*.json"))
    assert len(names) > 7 and verify([out]).problems == []
    for name in names[1:7]:
        for path in out.glob(f"{name}.*"):
            path.unlink()
    [problem] = verify([out]).problems
    assert f"6 of {len(names)} shards of 'ca', train, are missing" in problem
    assert problem.endswith(
        "ca-train-00001, ca-train-00002, ca-train-00003, ca-train-00004, ca-train-00005 ..."
    )
    assert verify([out / names[0]]).problems == []  # one shard was asked about, and it is well


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=60)
def test_any_flipped_bit_is_caught(
    tmp_path_factory: pytest.TempPathFactory, prepared: Path, position: int, bit: int
) -> None:
    directory = tmp_path_factory.mktemp("flip")
    for ending in (".bin", ".idx", ".json"):
        shutil.copy(prepared / f"ca-train-00000{ending}", directory)
    for ending in (".bin", ".idx", ".json"):
        path = directory / f"ca-train-00000{ending}"
        content = bytearray(path.read_bytes())
        content[position % len(content)] ^= 1 << bit
        path.write_bytes(content)
        assert verify([directory]).problems
        content[position % len(content)] ^= 1 << bit
        path.write_bytes(content)
    assert not verify([directory]).problems


def manifests(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and numbers of the files."""
    return {path.name: (path.read_bytes(), path.stat().st_ino) for path in directory.glob("*-train-*.json")}


def test_renewing_adds_a_checksum_where_there_is_none(shards: Path) -> None:
    before = manifests(shards)
    old = shards / "ca-train-00000.json"
    old.write_bytes(without_own_sum(old.read_bytes()))
    with pytest.warns(DataWarning, match="no checksum of themselves"):
        assert verify([shards], renew=True).problems == []
    after = manifests(shards)
    assert {name: raw for name, (raw, _) in after.items()} == {name: raw for name, (raw, _) in before.items()}
    assert after["oc-train-00000.json"] == before["oc-train-00000.json"]  # not written at all


def test_a_manifest_that_cannot_be_renewed_is_a_problem_and_hides_no_other(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in shards.glob("*-train-*.json"):
        path.write_bytes(without_own_sum(path.read_bytes()))

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(DataWarning):
        report = verify([shards], renew=True)
    assert report.shards == 2 and len(report.problems) == 2
    for language, problem in zip(("ca", "oc"), sorted(report.problems), strict=True):
        assert re.search(rf"{language}-train-00000\.json: cannot be written: Read-only", problem)


def test_a_manifest_at_a_url_that_is_not_renewed_is_named(shards: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for path in shards.glob("ca-train-00000.*"):
        raw = path.read_bytes()
        store.pipe(f"/renewed/{path.name}", without_own_sum(raw) if path.suffix == ".json" else raw)
    try:
        with pytest.warns(DataWarning):
            report = verify([as_location("memory://renewed/ca-train-00000")], renew=True)
        assert report.problems == [] and len(report.notes) == 1
        assert re.search(r"memory://renewed/ca-train-00000\.json: .* not renewed", report.notes[0])
    finally:
        store.rm("/renewed", recursive=True)


def rewrite(directory: Path, ids: list[int], identity: TokenizerIdentity) -> Path:
    """A shard whose manifest claims ``identity``, whatever its ids."""
    honest = TokenizerIdentity("0" * 64, vocab_size=1000, eod_id=ids[-1])
    prefix = directory / "xx-train-00000"
    with ShardWriter(prefix, language="xx", split="train", tokenizer=honest) as writer:
        writer.add_document(ids, utf8_bytes=1)
    edit_manifest(prefix.with_suffix(".json"), tokenizer=vars(identity))
    return prefix


def test_ids_outside_the_vocabulary_and_missing_ends_are_caught(tmp_path: Path) -> None:
    rewrite(tmp_path, [5, 100, 2], IDENTITY)
    assert "token 1 is id 100, outside the vocabulary of 100" in verify([tmp_path]).problems[0]
    rewrite(tmp_path, [5, 6], IDENTITY)
    assert "document 0 ends with id 6" in verify([tmp_path]).problems[0]
    rewrite(tmp_path, [5, 2], TokenizerIdentity("0" * 64, vocab_size=256_000, eod_id=2))
    assert "ids are uint16" in verify([tmp_path]).problems[0]


def test_each_damaged_chunk_is_named_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writer, "CHUNK_BYTES", 64)
    prefix = tmp_path / "xx-train-00000"
    with ShardWriter(prefix, language="xx", split="train", tokenizer=IDENTITY) as writer:
        writer.add_document([*range(50), 2], utf8_bytes=1)
        writer.add_document([*range(40), 2], utf8_bytes=1)
    edit_manifest(prefix.with_suffix(".json"), chunk_bytes=64)
    assert len(ShardManifest.load(prefix).bin_sha256) == 3
    assert verify([prefix]).problems == []
    edit(prefix.with_suffix(".bin"), 70, b"\x63")
    assert "bytes 64 to 128 do not have their checksum" in verify([prefix]).problems[0]


def test_one_damaged_shard_does_not_hide_another(shards: Path) -> None:
    for language in ("ca", "oc"):
        edit(shards / f"{language}-train-00000.bin", 0, b"\xff")
    assert len(verify([shards]).problems) == 2


def test_a_shard_without_manifest_is_checked_for_structure(shards: Path) -> None:
    (shards / "ca-train-00000.json").unlink()
    report = verify([shards])
    assert report.problems == [] and report.without_manifest == [shards / "ca-train-00000"]


def test_a_damaged_plan_is_a_problem(shards: Path, tmp_path: Path) -> None:
    build_plan([shards], LanguageFactors({})).save(tmp_path / "blend.yaml")
    (shards / "ca-train-00000.bin").unlink()
    assert "ca-train-00000.bin: missing" in verify([tmp_path / "blend.yaml"]).problems[0]


def test_a_bin_without_idx_is_a_problem(shards: Path) -> None:
    (shards / "ca-train-00000.idx").unlink()
    problems = verify([shards]).problems
    assert len(problems) == 1
    assert "incomplete: ca-train-00000.idx missing" in problems[0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "1 to"),
        ([1, 100, 2], "id 100 is outside"),
        ([-1, 2], "id -1 is outside"),
        ([1, 3], "ends with id 3"),
    ],
)
def test_the_writer_refuses_wrong_ids_and_leaves_nothing(
    tmp_path: Path, ids: list[int], message: str
) -> None:
    with (
        pytest.raises(DataError, match=message),
        ShardWriter(tmp_path / "s", language="xx", split="train", tokenizer=IDENTITY) as writer,
    ):
        writer.add_document([1, 2], utf8_bytes=1)
        writer.add_document(ids, utf8_bytes=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_leaves_no_part_of_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    calls = 0

    def fail_late(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        original(*arguments)

    original = getattr(shard_writer.os, step)
    monkeypatch.setattr(shard_writer.os, step, fail_late)
    with (
        pytest.raises(WriteError, match="No space left on device"),
        ShardWriter(tmp_path / "s", language="xx", split="train", tokenizer=IDENTITY) as writer,
    ):
        writer.add_document([1, 2], utf8_bytes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_appears_after_all_else_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split(".partial")[0])
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append(f"name {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    out = tmp_path / "out"
    with ShardWriter(
        out / "s", language="xx", split="train", tokenizer=IDENTITY, staging=tmp_path / "staging"
    ) as writer:
        writer.add_document([1, 2], utf8_bytes=1)
    assert events == [
        *("sync .s.bin", "sync .s.idx", "sync .s.json"),
        *("name .s.json.publishing", "name s.bin", "name s.idx", "sync out", "name s.json"),
    ]


def test_reading_outside_a_shard_is_refused(prepared: Path) -> None:
    shard = IndexedShard.open(prepared / "ca-train-00000")
    assert len(shard.read(shard.tokens - 1, 1)) == 1
    for start, count in ((-1, 2), (0, shard.tokens + 1), (shard.tokens, 1), (0, -1)):
        with pytest.raises(DataError, match="the shard has"):
            shard.read(start, count)
    for number in (-1, shard.documents):
        with pytest.raises(DataError, match="the shard has"):
            shard.document(number)
    view = shard.read(0, 3)
    shard.close()
    assert np.array_equal(view, shard.read(0, 3))
    assert not view.flags.writeable


def test_inspect_counts_and_decodes(prepared: Path, small_tokenizer: Path) -> None:
    lines = shard_table(prepared).splitlines()
    assert lines[2].split()[:4] == ["ca-train-00000", "ca", "train", "3"]
    texts = {document_text(prepared, number) for number in range(6)}
    assert texts == {"bona tarda a tothom", "dos\nlínies", "tres ca", "tres oc"}
    with pytest.raises(DataError, match="there are 6"):
        document_text(prepared, 6)
    assert document_text(prepared, 0, small_tokenizer) in texts
    with pytest.raises(DataError, match="no tokenizer here"):
        document_text(prepared, 0, prepared / "nowhere.model")
