"""Tokenization is exact, globally shuffled, and the same bytes whatever the number of workers."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenize_job import tokenize_job

from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import IndexedShard, ShardManifest
from salamandra_data.tokenization import TokenizeJob, first_pass, sorted_runs, tokenize_documents
from salamandra_data.tokenization import plan as planning
from salamandra_data.tokenization.document_hash import is_validation, shuffle_keys

EOD = 2


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def shard_documents(prefix: Path) -> list[list[int]]:
    shard = IndexedShard.open(prefix)
    return [list(map(int, shard.document(number))) for number in range(shard.documents)]


def read_inputs(files: list[Path]) -> list[dict[str, str]]:
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, corpus_files: list[Path], small_tokenizer: Path) -> Path:
    """The corpus tokenized by one worker, into several shards of each language."""
    out = tmp_path_factory.mktemp("single")
    tokenize_documents(job(corpus_files, small_tokenizer, out))
    return out


def job(files: list[Path], tokenizer: Path, out: Path, **changes: object) -> TokenizeJob:
    base = tokenize_job(files, tokenizer, out, shard_tokens=20_000, validation_fraction=0.1, seed=7)
    return base.model_copy(update=changes)


@pytest.mark.parametrize("workers", [2, 3])
def test_output_is_the_same_bytes_for_any_number_of_workers(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, single: Path, workers: int
) -> None:
    tokenize_documents(job(corpus_files, small_tokenizer, tmp_path), workers)
    assert contents(tmp_path) == contents(single)


def test_output_does_not_depend_on_the_size_of_buffers(
    tmp_path: Path,
    corpus_files: list[Path],
    small_tokenizer: Path,
    single: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sorted_runs.RunWriter.__init__, "__defaults__", (30_000,))
    monkeypatch.setattr(planning, "_PART_BYTES", 10_000)
    monkeypatch.setattr(first_pass, "MOST_RUNS", 3)
    monkeypatch.setattr(sorted_runs, "FAN_IN", 3)
    tokenize_documents(job(corpus_files, small_tokenizer, tmp_path, scratch=tmp_path / "scratch"))
    (tmp_path / "scratch").rmdir()
    assert contents(tmp_path) == contents(single)


def test_every_document_is_written_once_with_its_exact_ids(
    corpus_files: list[Path], small_tokenizer: Path, single: Path
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    expected = Counter(
        (record["language"], (*processor.encode(record["text"]), EOD)) for record in read_inputs(corpus_files)
    )
    found = Counter(
        (ShardManifest.load(path.with_suffix("")).language, tuple(ids))
        for path in single.glob("*.idx")
        for ids in shard_documents(path.with_suffix(""))
    )
    assert found == expected


def test_manifests_count_what_is_in_the_shards(corpus_files: list[Path], single: Path) -> None:
    manifests = [ShardManifest.load(path.with_suffix("")) for path in single.glob("*.json")]
    records = read_inputs(corpus_files)
    for language in {record["language"] for record in records}:
        mine = [manifest for manifest in manifests if manifest.language == language]
        texts = [record["text"] for record in records if record["language"] == language]
        assert sum(manifest.documents for manifest in mine) == len(texts)
        assert sum(manifest.utf8_bytes for manifest in mine) == sum(len(text.encode()) for text in texts)
        assert sum(manifest.licences["free"] for manifest in mine) == len(texts)
        assert {name for manifest in mine for name in manifest.sources} == {f"declaration-{language}"}
        assert {manifest.split for manifest in mine} == {"train", "validation"}
    assert all(manifest.shuffle_seed == 7 for manifest in manifests)
    train = [manifest.tokens for manifest in manifests if manifest.split == "train"]
    assert len(train) > 6 and max(train) < 40_000


def test_shards_are_numbered_without_gaps_and_of_the_size_asked_for(
    tmp_path: Path, small_tokenizer: Path
) -> None:
    chance = random.Random(3)
    texts = [f"{number} bona tarda " * chance.choice((20, 60, 700)) for number in range(120)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    sizes = [len(processor.encode(text)) + 1 for text in texts]
    asked = sum(sizes) // 9
    tokenize_documents(
        tokenize_job(
            [source], small_tokenizer, tmp_path / "out", DocumentKeys(language="ca"), shard_tokens=asked
        )
    )
    manifests = [
        ShardManifest.load(path.with_suffix("")) for path in sorted((tmp_path / "out").glob("*.json"))
    ]
    assert [manifest.shard for manifest in manifests] == list(range(10))
    assert [path.stem for path in sorted((tmp_path / "out").glob("*.bin"))] == [
        f"ca-train-{number:05d}" for number in range(10)
    ]
    assert {manifest.shards for manifest in manifests} == {10}
    for manifest in manifests:
        assert abs(manifest.tokens - sum(sizes) / 10) <= max(sizes)


def test_documents_of_all_files_are_mixed_and_the_seed_decides_how(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path
) -> None:
    orders = {}
    for seed in (1, 2):
        out = tmp_path / str(seed)
        tokenize_documents(
            job(corpus_files, small_tokenizer, out, seed=seed, shard_tokens=10**9, validation_fraction=0)
        )
        orders[seed] = [tuple(ids) for ids in shard_documents(out / "ca-train-00000")]
    assert orders[1] != orders[2]
    assert sorted(orders[1]) == sorted(orders[2])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    first_file = {
        (*processor.encode(record["text"]), EOD)
        for record in read_inputs(corpus_files[:1])
        if record["language"] == "ca"
    }
    for order in orders.values():
        assert (
            abs(rank_sum_z([place for place, ids in enumerate(order) if ids in first_file], len(order))) < 4
        )
    seconds = [orders[2].index(ids) for ids in orders[1]]
    assert abs(np.corrcoef(seconds, range(len(seconds)))[0, 1]) < 4 / len(seconds) ** 0.5


def rank_sum_z(places: list[int], count: int) -> float:
    """How many standard deviations the sum of ``places`` is from that of as many random ones out of ``count``."""
    others = count - len(places)
    expected = len(places) * (count - 1) / 2
    return float((sum(places) - expected) / (len(places) * others * (count + 1) / 12) ** 0.5)


def test_the_statistic_of_mixing_tells_an_order_that_was_kept() -> None:
    assert abs(rank_sum_z(list(range(13)), 40)) > 4
    assert abs(rank_sum_z(list(range(0, 39, 3)), 40)) < 1


def test_validation_is_chosen_by_the_text_alone(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, single: Path
) -> None:
    tokenize_documents(job(list(reversed(corpus_files)), small_tokenizer, tmp_path, seed=99))
    for language in ("ca", "uk"):
        name = f"{language}-validation-00000"
        assert sorted(shard_documents(tmp_path / name)) == sorted(shard_documents(single / name))


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=12),
    seed=st.integers(-(2**63), 2**63 - 1),
)
@settings(max_examples=20)
def test_any_text_is_encoded_as_sentencepiece_does(
    tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path, texts: list[str], seed: int
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    (directory / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = tokenize_job(
        [directory / "in.jsonl"], small_tokenizer, directory / "out", DocumentKeys(language="xx"), seed=seed
    )
    if not any(texts):
        with pytest.raises(DataError, match="no document with text"):
            tokenize_documents(arguments)
        return
    result = tokenize_documents(arguments)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    expected = sorted([*processor.encode(text), EOD] for text in texts if text)
    assert sorted(shard_documents(directory / "out" / "xx-train-00000")) == expected
    assert result.empty_documents["xx"] == texts.count("")


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "\u0000",
        "\u2581",
        "\r\n",
        "e\u0323\u0302",
        "\U0010ffff",
        " " * 100,
        "</s>",
        "\u200b",
        "\ufeff",
    ],
)
def test_extreme_texts_are_exact(tmp_path: Path, small_tokenizer: Path, text: str) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": text, "language": "xx"}))
    tokenize_documents(tokenize_job([tmp_path / "in.jsonl"], small_tokenizer, tmp_path / "out"))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    assert shard_documents(tmp_path / "out" / "xx-train-00000") == [[*processor.encode(text), EOD]]


def in_final_order(files: list[Path], seed: int, validation_fraction: float) -> dict[str, list[str]]:
    """The texts of each language and split, by the keys of their places."""
    placed: dict[str, list[tuple[int, str]]] = {}
    for number, path in enumerate(files):
        records = [json.loads(line) for line in path.read_text().split("\n") if line]
        keys = shuffle_keys(seed, number, np.arange(1, len(records) + 1, dtype=np.uint64)).tolist()
        for key, record in zip(keys, records, strict=True):
            split = "validation" if is_validation(record["text"].encode(), validation_fraction) else "train"
            placed.setdefault(f"{record['language']}-{split}", []).append((key, record["text"]))
    return {name: [text for _, text in sorted(texts)] for name, texts in placed.items()}


def assert_equal_to_megatrons(out: Path, name: str, texts: list[str], model: Path, scratch: Path) -> None:
    """The shards ``out/name-*`` are what Megatron-Core's builder makes of ``texts``, in their order."""
    torch = pytest.importorskip("torch")
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    remaining = iter(texts)
    for path in sorted(out.glob(f"{name}-*.bin")):
        builder = indexed_dataset.IndexedDatasetBuilder(str(scratch / "theirs.bin"), dtype=np.uint16)
        for text in islice(remaining, IndexedShard.open(path).documents):
            ids = [*processor.encode(text), EOD]
            builder.add_document(torch.tensor(ids), [len(ids)])
        builder.finalize(str(scratch / "theirs.idx"))
        for ending in (".bin", ".idx"):
            assert (scratch / f"theirs{ending}").read_bytes() == path.with_suffix(ending).read_bytes()
    assert next(remaining, None) is None


def test_shards_equal_megatrons_builder_fed_by_sentencepiece(
    corpus_files: list[Path], small_tokenizer: Path, single: Path, tmp_path: Path
) -> None:
    expected = in_final_order(corpus_files, seed=7, validation_fraction=0.1)
    assert len(expected) == 12
    for name, texts in expected.items():
        assert_equal_to_megatrons(single, name, texts, small_tokenizer, tmp_path)


def test_hard_texts_equal_megatrons_builder_too(small_tokenizer: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    letters = "ab \u2581\u0000\r\n\t\u0300\u0301e\u0323\u0302\u00a0\u1100\u1161\u11a8\ufeff😀\u200d語é</s>"
    texts = ["".join(chance.choices(letters, k=chance.randint(1, 50))) for _ in range(400)]
    texts += ["ab" * 600_000, "語" * 400_000, "de la casa " * 120_000, "e\u0301s clar\r\n " * 100_000]
    source = tmp_path / "hard.jsonl"
    source.write_text("".join(json.dumps({"text": text, "language": "xx"}) + "\n" for text in texts))
    tokenize_documents(
        tokenize_job([source], small_tokenizer, tmp_path / "out", seed=3, shard_tokens=400_000)
    )
    expected = in_final_order([source], seed=3, validation_fraction=0.0)
    assert len(list((tmp_path / "out").glob("*.bin"))) > 1
    assert_equal_to_megatrons(tmp_path / "out", "xx-train", expected["xx-train"], small_tokenizer, tmp_path)


def test_table_and_result_add_up(tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path) -> None:
    result = tokenize_documents(job(corpus_files, small_tokenizer, tmp_path, validation_fraction=0))
    assert sum(group.documents for group in result.groups) == len(read_inputs(corpus_files))
    lines = result.table().splitlines()
    assert [line.split()[0] for line in lines[2:8]] == ["ca", "el", "en", "eu", "no", "uk"]
    assert lines[-1].startswith("all")
