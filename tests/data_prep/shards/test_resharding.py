"""Merge and split move borders between shards and nothing else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenize_job import tokenize_job

from megatron_salamandra.cli import main
from salamandra_data.blend_plan import verify
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import (
    IndexedShard,
    IntoParts,
    IntoTokens,
    ShardManifest,
    ShardWriter,
    TokenizerIdentity,
    Whole,
    document_text,
    find_shards,
    reshard,
)
from salamandra_data.shards.document_row import DocumentRow
from salamandra_data.tokenization import tokenize_documents
from tests.data_prep.conftest import make_documents, write_json_lines

EOD = 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Path:
    """Catalan in several shards, English in one."""
    directory = tmp_path_factory.mktemp("prepared")
    corpus = write_json_lines(directory / "in.jsonl", make_documents(60, languages=("ca", "en")))
    tokenize_documents(
        tokenize_job([corpus], small_tokenizer, directory / "shards", DocumentKeys(), shard_tokens=12_000)
    )
    return directory / "shards"


def catalan(directory: Path) -> list[Path]:
    return [prefix for prefix in find_shards([directory]) if prefix.name.startswith("ca-")]


def contents(prefixes: list[Path]) -> bytes:
    return b"".join(prefix.with_name(prefix.name + ".bin").read_bytes() for prefix in prefixes)


def test_merging_what_split_made_gives_the_same_files(prepared: Path, tmp_path: Path) -> None:
    [(whole, manifest)] = reshard(catalan(prepared), tmp_path / "whole", Whole())
    parts = reshard([whole], tmp_path / "parts", IntoParts(5))
    assert len(parts) == 5
    [(again, again_manifest)] = reshard([prefix for prefix, _ in parts], tmp_path / "again", Whole())
    for ending in (".bin", ".idx"):
        assert (
            again.with_name(again.name + ending).read_bytes()
            == whole.with_name(whole.name + ending).read_bytes()
        )
    assert manifest.utf8_bytes == again_manifest.utf8_bytes
    assert verify([tmp_path]).problems == []


def test_manifests_of_parts_count_what_is_in_them(prepared: Path, tmp_path: Path) -> None:
    old = [ShardManifest.load(prefix) for prefix in catalan(prepared)]
    assert len(old) > 1
    new = reshard(catalan(prepared), tmp_path / "new", IntoTokens(10_000))
    for key in ("documents", "tokens", "utf8_bytes"):
        assert sum(getattr(manifest, key) for _, manifest in new) == sum(getattr(one, key) for one in old)
    for prefix, manifest in new:
        shard = IndexedShard.open(prefix)
        assert manifest.sources == {"declaration-ca": shard.documents}
        assert manifest.licences == {"free": shard.documents}
        assert manifest.shuffle_seed == old[0].shuffle_seed
        assert 2 < manifest.utf8_bytes / manifest.tokens < 6


def test_bytes_of_parts_are_exact_for_text_in_nfc(tmp_path: Path, small_tokenizer: Path) -> None:
    texts = [f"Línia {number}\n\n\u20ac  fi\t" * number for number in range(1, 40)]
    corpus = write_json_lines(tmp_path / "in.jsonl", [{"text": text, "language": "ca"} for text in texts])
    tokenize_documents(tokenize_job([corpus], small_tokenizer, tmp_path / "shards", DocumentKeys(), seed=3))
    for number, (prefix, manifest) in enumerate(
        reshard(catalan(tmp_path / "shards"), tmp_path / "new", IntoParts(4))
    ):
        decoded = [document_text(prefix, document) for document in range(manifest.documents)]
        assert manifest.utf8_bytes == sum(len(text.encode()) for text in decoded), number


@given(
    lengths=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=4),
    limit=st.integers(1, 120),
    parts=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_cuts_are_between_documents_and_within_their_limit(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]], limit: int, parts: int
) -> None:
    directory = tmp_path_factory.mktemp("cuts")
    for number, documents in enumerate(lengths):
        identity = TokenizerIdentity("0" * 64, 100, EOD)
        with ShardWriter(
            directory / f"ca-train-{number:05d}", language="ca", split="train", tokenizer=identity
        ) as writer:
            for length in documents:
                writer.add_document([5] * (length - 1) + [EOD], utf8_bytes=length)
    row = DocumentRow(find_shards([directory]))
    flat = [length for documents in lengths for length in documents]
    starts = np.concatenate(([0], np.cumsum(flat)))
    bounds = IntoTokens(limit).bounds(row)
    assert bounds[0] == 0 and bounds[-1] == len(flat)
    for first, last in pairwise(bounds):
        assert last == first + 1 or starts[last] - starts[first] <= limit
        assert (
            last == len(flat) or starts[last + 1] - starts[first] > limit
        )  # no shard is shorter than it must be
    if parts <= len(flat):
        bounds = IntoParts(parts).bounds(row)
        assert len(bounds) == parts + 1 and bounds[0] == 0 and bounds[-1] == len(flat)
        assert all(first < last for first, last in pairwise(bounds))
    else:
        with pytest.raises(DataError, match="cannot fill"):
            IntoParts(parts).bounds(row)


def test_megatron_reads_merged_and_split_shards(prepared: Path, tmp_path: Path) -> None:
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")

    def documents(prefixes: list[Path]) -> list[list[int]]:
        return [ids.tolist() for prefix in prefixes for ids in indexed_dataset.IndexedDataset(str(prefix))]

    expected = documents(catalan(prepared))
    for name, cut in (("merged", Whole()), ("split", IntoParts(7))):
        new = reshard(catalan(prepared), tmp_path / name, cut)
        assert documents([prefix for prefix, _ in new]) == expected


def test_shards_that_do_not_belong_together_are_refused(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"language is 'en', but .*ca-train-00000.json has 'ca'"):
        reshard(find_shards([prepared]), tmp_path / "out", Whole())
    for number, vocab_size in enumerate((100, 70_000)):
        identity = TokenizerIdentity("0" * 64, vocab_size, EOD)
        with ShardWriter(
            tmp_path / f"ca-train-{number:05d}", language="ca", split="train", tokenizer=identity
        ) as writer:
            writer.add_document([5, EOD], utf8_bytes=1)
    with pytest.raises(DataError, match="tokenizer is"):
        reshard(find_shards([tmp_path]), tmp_path / "out", Whole())
    assert not (tmp_path / "out").exists()


def test_damage_is_not_sealed_under_new_checksums(
    prepared: Path, tmp_path: Path, small_tokenizer: Path
) -> None:
    [(whole, _)] = reshard(catalan(prepared), tmp_path / "whole", Whole())
    with open(whole.with_name(whole.name + ".bin"), "r+b") as stream:
        stream.seek(4)
        stream.write(b"\x09\x00")
    with pytest.raises(DataError, match="does not have the checksums of its manifest"):
        reshard([whole], tmp_path / "out", IntoParts(3))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != "tokenizer.model"] == []


@pytest.fixture
def labelled(tmp_path: Path, small_tokenizer: Path) -> Path:
    """100 documents: 44 of one licence, 31 of another, 25 of none; all of one source."""
    licences = ["MIT"] * 44 + ["CC0-1.0"] * 31 + [None] * 25
    documents = [
        {"text": f"document {number}", "language": "ca", "source": "web"}
        | ({"licence": licence} if licence else {})
        for number, licence in enumerate(licences)
    ]
    corpus = write_json_lines(tmp_path / "labelled.jsonl", documents)
    tokenize_documents(tokenize_job([corpus], small_tokenizer, tmp_path / "shards", DocumentKeys()))
    return tmp_path / "shards" / "ca-train-00000"


def test_licences_stay_counted_when_shards_are_cut_and_joined_again(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(DataWarning, match="it is not known which document is of which"):
        parts = reshard([labelled], tmp_path / "parts", IntoParts(3))
    for prefix, manifest in parts:
        assert manifest.sources == {"web": manifest.documents}  # known: all documents are of one source
        assert (manifest.licences, manifest.unlisted_sources) == ({}, 0)
        assert 0 < manifest.unlisted_licences <= manifest.documents, prefix
    assert sum(manifest.unlisted_licences for _, manifest in parts) == 75
    [(_, again)] = reshard([prefix for prefix, _ in parts], tmp_path / "again", Whole())
    assert (again.sources, again.licences, again.unlisted_licences) == ({"web": 100}, {}, 75)
    [(_, finer)] = reshard([labelled], tmp_path / "same", Whole())
    assert (finer.licences, finer.unlisted_licences) == ({"CC0-1.0": 31, "MIT": 44}, 0)
    assert main(["data", "inspect", str(tmp_path / "parts")]) == 0
    assert "unlisted 2" in capsys.readouterr().out
    [(_, thrice)] = reshard([labelled, *(prefix for prefix, _ in parts)], tmp_path / "thrice", Whole())
    assert (thrice.licences, thrice.unlisted_licences) == ({"CC0-1.0": 31, "MIT": 44}, 75)


def test_output_among_the_shards_that_are_read_is_refused(labelled: Path, tmp_path: Path) -> None:
    (labelled.parent / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    for out in (labelled.parent / "parts", labelled.parent / "a" / ".." / "parts", tmp_path):
        with pytest.raises(DataError, match="would take its documents twice\n  choose an --out beside it"):
            reshard([labelled], out, IntoParts(2))
    assert not (labelled.parent / "parts").exists()


def test_shards_in_the_way_are_refused(prepared: Path) -> None:
    before = contents(catalan(prepared))
    with pytest.raises(DataError, match="there are shards of 'ca', train, in this directory already"):
        reshard(catalan(prepared), prepared, Whole())
    assert contents(catalan(prepared)) == before


def test_commands_merge_split_and_search(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [str(prefix) for prefix in catalan(prepared)]
    assert main(["data", "merge", *shards, "--out", str(tmp_path / "one")]) == 0
    one = str(tmp_path / "one" / "ca-train-00000.bin")
    assert main(["data", "split", one, "--out", str(tmp_path / "three"), "--shards", "3"]) == 0
    assert "ca-train-00002" in capsys.readouterr().out
    assert contents(catalan(tmp_path / "three")) == contents(catalan(prepared))
    assert main(["data", "inspect", str(tmp_path / "three"), "--search", "17\t"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    number = line.split()[0]
    assert main(["data", "inspect", str(tmp_path / "three"), "--document", number]) == 0
    assert capsys.readouterr().out.startswith("17\t")
    assert main(["data", "inspect", str(tmp_path / "three"), "--search", "humans", "--max-results", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["data", "split", str(prepared), "--out", str(tmp_path / "x"), "--shards", "2"]) == 1
    assert "name one of them" in capsys.readouterr().err
