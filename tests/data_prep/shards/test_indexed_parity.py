"""Shards are Megatron's, byte for byte, in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salamandra_data.shards import IndexedShard, ShardManifest, ShardWriter, TokenizerIdentity

EOD = 2
documents_of_ids = st.lists(st.lists(st.integers(0, 990), max_size=30), max_size=12)


def write_shard(prefix: Path, documents: list[list[int]], vocab_size: int) -> ShardManifest:
    tokenizer = TokenizerIdentity(sha256="0" * 64, vocab_size=vocab_size, eod_id=EOD)
    with ShardWriter(prefix, language="ca", split="train", tokenizer=tokenizer) as writer:
        for ids in documents:
            writer.add_document([*ids, EOD], utf8_bytes=3 * len(ids))
    assert writer.manifest is not None
    return writer.manifest


def write_with_megatron(prefix: Path, documents: list[list[int]], vocab_size: int) -> None:
    torch = pytest.importorskip("torch")
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    dtype = indexed_dataset.DType.optimal_dtype(vocab_size)
    builder = indexed_dataset.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for ids in documents:
        builder.add_document(torch.tensor([*ids, EOD]), [len(ids) + 1])
    builder.finalize(f"{prefix}.idx")


@pytest.mark.parametrize("vocab_size", [65_499, 65_500, 256_000])
@given(documents=documents_of_ids)
@settings(max_examples=25, deadline=None)
def test_our_files_equal_megatrons_builder(
    tmp_path_factory: pytest.TempPathFactory, vocab_size: int, documents: list[list[int]]
) -> None:
    directory = tmp_path_factory.mktemp("parity")
    write_shard(directory / "ours", documents, vocab_size)
    write_with_megatron(directory / "theirs", documents, vocab_size)
    for ending in ("bin", "idx"):
        assert (directory / f"ours.{ending}").read_bytes() == (directory / f"theirs.{ending}").read_bytes()


@pytest.mark.parametrize("vocab_size", [1000, 256_000])
def test_megatron_reads_our_shard(tmp_path: Path, vocab_size: int) -> None:
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    documents = [[5, 6, 7], [], [999] * 100]
    write_shard(tmp_path / "ca.train-00000", documents, vocab_size)
    dataset = indexed_dataset.IndexedDataset(str(tmp_path / "ca.train-00000"))
    assert len(dataset) == 3
    assert [list(ids) for ids in dataset] == [[*ids, EOD] for ids in documents]
    assert list(dataset.document_indices) == [0, 1, 2, 3]


@given(documents=documents_of_ids)
@settings(max_examples=25, deadline=None)
def test_we_read_megatrons_shard_without_a_manifest(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]]
) -> None:
    prefix = tmp_path_factory.mktemp("foreign") / "shard"
    write_with_megatron(prefix, documents, 256_000)
    shard = IndexedShard.open(prefix)
    shard.check_structure()
    assert shard.documents == len(documents)
    assert [list(shard.document(number)) for number in range(shard.documents)] == [
        [*ids, EOD] for ids in documents
    ]
    flat = [token for ids in documents for token in (*ids, EOD)]
    assert list(shard.read(0, shard.tokens)) == flat


def test_documents_of_several_or_no_sequences_are_whole(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "s.bin"), dtype=np.int32)
    builder.add_document(torch.tensor([1, 2, 3, 4, 5]), [2, 3])
    builder.add_document(torch.tensor([], dtype=torch.int64), [])
    builder.add_document(torch.tensor([6, 7]), [2])
    builder.finalize(str(tmp_path / "s.idx"))
    shard = IndexedShard.open(tmp_path / "s")
    shard.check_structure()
    assert [list(shard.document(number)) for number in range(3)] == [[1, 2, 3, 4, 5], [], [6, 7]]
    assert (shard.documents, shard.sequences, shard.tokens) == (3, 3, 7)
