"""What is asked of an object store: windows exactly, documents by blocks, never more memory than the cap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from synthetic_blend import write_blend

from megatron_salamandra.data import SampleStream, StepLoader, step_loader, validation_sets
from megatron_salamandra.timeline import Timeline
from salamandra_data.blend_plan import BlendPlan, LanguageFactors, build_plan
from salamandra_data.shards import IndexedShard, bin_path
from salamandra_data.storage import BlockCache, CachedRemoteFile, RemotePath

URL = "memory://bucket/shards"
LENGTH = 128
Request = tuple[str, int, int]


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a local blend, whose shards are at :data:`URL` too."""
    directory = tmp_path_factory.mktemp("blend")
    write_blend(directory)
    filesystem = fsspec.filesystem("memory")
    for path in directory.iterdir():
        if path.suffix in (".bin", ".idx", ".json"):
            filesystem.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    yield directory
    filesystem.rm("/bucket", recursive=True)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The ranges that were asked of ``.bin`` objects: name, first byte, byte behind the last."""
    asked: list[Request] = []
    original = MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, start: Any = None, end: Any = None, **rest: Any) -> Any:
        if path.endswith(".bin"):
            asked.append((path, start, end))
        return original(self, path, start=start, end=end, **rest)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    return asked


@pytest.fixture
def plan(remote: Path) -> BlendPlan:
    return build_plan([URL], LanguageFactors({"ca": 2}), tokenizer=remote / "tokenizer.model")


def test_a_window_is_requested_to_the_byte(plan: BlendPlan, requests: list[Request]) -> None:
    stream = SampleStream(plan, LENGTH, seed=3)
    for sample in [*range(60), *range(60)]:  # the second time too: no window is kept
        requests.clear()
        stream.sample(sample)
        # Ids below 65,500 take two bytes.
        assert requests == [
            (str(bin_path(span.path)), 2 * span.start_token, 2 * (span.start_token + span.tokens))
            for span in stream.locate(sample).spans
        ]


def test_requests_of_a_step_overlap_and_are_bounded(
    plan: BlendPlan, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = SampleStream(plan, LENGTH, seed=3)
    expected = [stream.sample(k).tolist() for k in range(40)]
    original, lock = MemoryFileSystem.cat_file, threading.Lock()
    in_flight, all_busy = [0, 0], threading.Event()  # now, at most

    def cat_file(self: MemoryFileSystem, path: str, **rest: Any) -> Any:
        with lock:
            in_flight[0] += 1
            in_flight[1] = max(in_flight)
            if in_flight[0] == step_loader.REMOTE_READERS:
                all_busy.set()
        if not all_busy.wait(10.0):
            all_busy.set()  # never will be: do not wait again
        with lock:
            in_flight[0] -= 1
        return original(self, path, **rest)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    with StepLoader(
        stream,
        timeline=Timeline.of_one_phase("main", steps=10, batch_size=40, sequence_length=LENGTH),
        micro_batch_size=2,
        data_parallel_rank=0,
        data_parallel_size=1,
        prefetch_steps=1,
    ) as loader:
        step = loader.next_step()
    windows = torch.cat([torch.cat([batch.tokens, batch.labels[:, -1:]], dim=1) for batch in step])
    assert windows.tolist() == expected
    assert in_flight[1] == step_loader.REMOTE_READERS


@pytest.mark.parametrize(("micro_batch_size", "ranks"), [(1, 1), (4, 2)])
def test_a_micro_batch_of_validation_is_one_request(
    plan: BlendPlan, requests: list[Request], micro_batch_size: int, ranks: int
) -> None:
    for held_out in validation_sets(plan, LENGTH):
        requests.clear()
        for rank in range(ranks):
            for batch in held_out.micro_batches(micro_batch_size, rank, ranks):
                predictions = int(batch.loss_mask.sum())
                expected = [2 * (predictions + 1)] if predictions else []
                assert [end - start for _, start, end in requests] == expected
                requests.clear()


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 5000])
def test_any_range_is_read_with_one_request_at_most(
    remote: Path, requests: list[Request], block_bytes: int
) -> None:
    content = (remote / "ga-train-00000.bin").read_bytes()
    path = RemotePath(f"{URL}/ga-train-00000.bin")
    cache = BlockCache(4 * block_bytes)
    files = [CachedRemoteFile(path, len(content), cache, block_bytes=block_bytes) for _ in range(2)]
    chance = np.random.default_rng(0)
    for number in range(400):
        start = int(chance.integers(0, len(content) + 1))
        end = int(chance.integers(start, min(start + 3 * block_bytes, len(content)) + 1))
        out = bytearray(end - start)
        files[number % 2].read_into(memoryview(out), start)
        assert bytes(out) == content[start:end]
        assert len(requests) <= number + 1
        assert cache.kept_bytes <= 4 * block_bytes


def test_neighbouring_documents_share_requests(remote: Path, requests: list[Request]) -> None:
    shard = IndexedShard.open(f"{URL}/en-train-00000")
    for number in range(shard.documents):
        shard.document(number)
    assert shard.documents > 100
    assert requests == [(f"{URL}/en-train-00000.bin", 0, 2 * shard.tokens)]  # smaller than a block


def test_blocks_of_an_object_are_not_those_of_one_that_was_there_before(remote: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    cache = BlockCache(1 << 20)
    for content in (b"before", b"after."):
        filesystem.pipe_file("/bucket/other", content)
        out = bytearray(6)
        CachedRemoteFile(RemotePath("memory://bucket/other"), 6, cache).read_into(memoryview(out), 0)
        assert bytes(out) == content
