from __future__ import annotations

import contextlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from megatron_salamandra.data import SampleStream
from megatron_salamandra.data.open_shards import OpenShards
from megatron_salamandra.data.shard_reader import SourceReader
from salamandra_data.errors import DataError
from salamandra_data.shards import IndexedShard

if TYPE_CHECKING:
    from conftest import ShardPlace

SHARDS = {
    "ca": [[5, 40, 3, 1, 17], [30], [2, 2, 2], [50, 9]],
    "en": [[400, 2, 7], [350, 33]],
}


def test_windows_are_the_source_cut_end_to_end_across_documents_and_shards(shard_place: ShardPlace) -> None:
    length = 16
    plan = shard_place.plan(SHARDS, {"en": "0.5", "ca": 2})
    stream = SampleStream(plan, length, seed=11)
    whole = {source.language: shard_place.source_tokens(source.shards) for source in plan.sources}
    crossing = 0
    for k in range(200):
        place, tokens = stream.locate(k), stream.sample(k)
        assert tokens.dtype == np.int64 and tokens.shape == (length + 1,)
        start = place.window * length
        np.testing.assert_array_equal(tokens, whole[place.language][start : start + length + 1])
        read = [
            np.concatenate(shard_place.documents[span.path])[
                span.start_token : span.start_token + span.tokens
            ]
            for span in place.spans
        ]
        np.testing.assert_array_equal(tokens, np.concatenate(read))
        crossing += len(place.spans) > 1
    assert crossing > 5


def test_tokens_equal_those_megatron_core_reads_from_the_same_shards(shard_place: ShardPlace) -> None:
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    length = 16
    plan = shard_place.plan(SHARDS)
    stream = SampleStream(plan, length, seed=11)
    theirs = {}
    for source in plan.sources:
        documents = []
        for shard in source.shards:
            dataset = indexed_dataset.IndexedDataset(str(shard.path))
            documents += [
                np.array(dataset[number]) for number in range(len(dataset))
            ]  # copies: theirs dangle
        theirs[source.language] = np.concatenate(documents)
    for k in range(150):
        place = stream.locate(k)
        start = place.window * length
        np.testing.assert_array_equal(
            stream.sample(k), theirs[place.language][start : start + length + 1].astype(np.int64)
        )


def descriptors_below(directory: Path) -> list[str]:
    """Files below ``directory`` that this process holds open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [link for link in links if link.startswith(f"{directory}/")]


def test_open_shards_stay_below_the_limit(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[20]] * 6})
    shards = plan.sources[0].shards
    reader = SourceReader(shards, OpenShards(limit=2))
    expected = wide_shard_place.source_tokens(shards)
    for number in [*range(6), *range(6)]:
        np.testing.assert_array_equal(reader.read(20 * number, 20), expected[20 * number : 20 * (number + 1)])
        held = descriptors_below(wide_shard_place.directory)
        assert len(held) <= 2 and f"{shards[number].path}.bin" in held
    np.testing.assert_array_equal(reader.read(0, 120), expected)
    with pytest.raises(ValueError, match="at least one shard"):
        OpenShards(0)


def test_a_shard_being_read_is_not_closed_under_its_reader(wide_shard_place: ShardPlace) -> None:
    first, second = wide_shard_place.plan({"ca": [[20], [20]]}).sources[0].shards
    open_shards = OpenShards(limit=1)
    out = np.empty(20, dtype=np.int64)
    with open_shards.reading(first) as shard:
        with open_shards.reading(second):
            assert len(descriptors_below(wide_shard_place.directory)) == 2
        assert descriptors_below(wide_shard_place.directory) == [f"{first.path}.bin"]
        shard.read_into(out, 0)
    np.testing.assert_array_equal(out, wide_shard_place.source_tokens([first]))


def test_descriptors_are_closed_without_waiting_for_the_collector(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[20]] * 6})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream = SampleStream(plan, 8, seed=1, open_shards_limit=2)
        for k in range(20):
            stream.sample(k)
        opened = IndexedShard.open(plan.sources[0].shards[0].path)
        assert len(descriptors_below(wide_shard_place.directory)) == 2
        del stream
        assert descriptors_below(wide_shard_place.directory) == []
        assert opened.tokens == 20
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []


def test_nothing_is_opened_before_it_is_read(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[40], [40]]})
    for shard in plan.sources[0].shards:
        Path(f"{shard.path}.bin").unlink()
    stream = SampleStream(plan, 8, seed=1)
    stream.locate(5)
    stream.ledger(10**9)
    with pytest.raises(DataError, match=r"ca-train-0000\d\.bin"):
        stream.sample(5)


def test_a_shard_rewritten_since_the_plan_is_refused(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[40]]})
    other = wide_shard_place.write("ca", [50])
    planned = plan.sources[0].shards[0]
    for ending in (".bin", ".idx"):
        Path(f"{other.path}{ending}").replace(f"{planned.path}{ending}")
    with pytest.raises(DataError, match=r"the shard holds 50 tokens, but the blend plan counted 40"):
        SampleStream(plan, 8, seed=1).sample(0)


def test_a_truncated_shard_is_named(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[40]]})
    path = Path(f"{plan.sources[0].shards[0].path}.bin")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=str(path)):
        SampleStream(plan, 8, seed=1).sample(0)


def test_a_shard_cut_short_during_the_run_is_an_error_and_not_a_crash(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[4000]]})
    stream = SampleStream(plan, 1000, seed=1)
    stream.sample(0)
    path = Path(f"{plan.sources[0].shards[0].path}.bin")
    os.truncate(path, 100)
    with pytest.raises(DataError, match=rf"{path}: ends at byte"):
        stream.sample(1)


def test_samples_do_not_depend_on_what_was_read_before_or_by_which_thread(
    wide_shard_place: ShardPlace,
) -> None:
    plan = wide_shard_place.plan(SHARDS, {"en": "0.5", "ca": 2})
    straight = SampleStream(plan, 16, seed=11)
    expected = [straight.sample(k).tolist() for k in range(300)]
    jumping = SampleStream(plan, 16, seed=11, open_shards_limit=1)
    order = np.random.default_rng(0).permutation(300).tolist()
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda k: jumping.sample(k).tolist(), order))
    assert read == [expected[k] for k in order]
    del straight
    assert len(descriptors_below(wide_shard_place.directory)) == 1


def test_reading_outside_the_source_is_refused(wide_shard_place: ShardPlace) -> None:
    reader = SourceReader(wide_shard_place.plan({"ca": [[40]]}).sources[0].shards, OpenShards())
    for start, count in ((-1, 2), (0, 41), (40, 1)):
        with pytest.raises(ValueError, match="outside the source"):
            reader.read(start, count)
    assert reader.read(40, 0).size == 0
