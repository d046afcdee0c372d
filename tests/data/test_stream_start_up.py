"""Starting at the size of the 7B's run costs what its 226 shards cost, not what its 2.4 trillion tokens would."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.data import SampleStream, StepLoader
from megatron_salamandra.timeline import Timeline
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.storage import random_access

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "data"
INDEX_BYTES = 34 + 4 + 8
"""Of opening a shard: the header, and length and start of the last document."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module that writes the shards of the benchmark, and their blend plan."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import sparse_shards
    finally:
        sys.path.remove(str(BENCHMARKS))
    return sparse_shards, sparse_shards.write_shards(tmp_path_factory.mktemp("shards"))


def test_first_batch_reads_headers_and_its_own_windows(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    size, plan_file = shards
    opened: Counter[str] = Counter()
    read: Counter[str] = Counter()
    preadv = os.preadv

    def counting_open(path: Path, *arguments: Any, **options: Any) -> Any:
        opened[path.suffix] += 1
        return open(path, *arguments, **options)

    def counting_preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        got = preadv(descriptor, buffers, offset)
        read[Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix] += got
        return got

    monkeypatch.setattr(random_access, "open", counting_open, raising=False)
    monkeypatch.setattr(os, "preadv", counting_preadv)
    descriptors = len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        plan = BlendPlan.load(plan_file)
        assert (opened, read) == ({".idx": size.SHARDS}, {".idx": size.SHARDS * INDEX_BYTES})
        stream = SampleStream(plan, size.SEQUENCE_LENGTH, seed=1234)
        with StepLoader(
            stream,
            timeline=Timeline.of_one_phase(
                "main", steps=10, batch_size=size.GLOBAL_BATCH, sequence_length=size.SEQUENCE_LENGTH
            ),
            micro_batch_size=1,
            data_parallel_rank=0,
            data_parallel_size=1,
            prefetch_steps=1,
        ) as loader:
            batches = loader.next_step()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(batches) == size.GLOBAL_BATCH
    assert opened[".bin"] <= size.SHARDS and opened[".idx"] <= 2 * size.SHARDS
    step_bytes = size.GLOBAL_BATCH * (size.SEQUENCE_LENGTH + 1) * 4
    assert step_bytes <= read[".bin"] <= 2 * step_bytes  # the step, and what of the next was read ahead
    assert len(os.listdir("/proc/self/fd")) - descriptors <= size.SHARDS
    assert peak_bytes < 100e6


def test_last_samples_of_the_run_are_found_without_reading(shards: Any) -> None:
    size, plan_file = shards
    stream = SampleStream(BlendPlan.load(plan_file), size.SEQUENCE_LENGTH, seed=1234)
    tracemalloc.start()
    try:
        places = [stream.locate(sample) for sample in range(size.SAMPLES - 1000, size.SAMPLES)]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {place.epoch for place in places} == {5}
    assert peak_bytes < 2e6
