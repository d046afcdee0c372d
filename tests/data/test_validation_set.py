from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_salamandra.data import ValidationSet, validation_sets
from megatron_salamandra.data.open_shards import OPEN_SHARDS_LIMIT, OPEN_VALIDATION_SHARDS_LIMIT
from salamandra_data.blend_plan import BlendSource
from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from conftest import ShardPlace


def held_out(place: ShardPlace, shards: list[list[int]]) -> BlendSource:
    source = place.plan({"ca": [[50]]}).sources[0]
    return replace(
        source,
        validation_shards=tuple(place.write("ca", lengths, split="validation") for lengths in shards),
    )


@given(
    length=st.integers(1, 40),
    micro=st.integers(1, 5),
    ranks=st.integers(1, 4),
    max_samples=st.none() | st.integers(1, 9),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # the shards are written again for each example, and only read
def test_predictions_are_covered_once_and_ranks_run_in_step(
    wide_shard_place: ShardPlace, length: int, micro: int, ranks: int, max_samples: int | None
) -> None:
    source = held_out(wide_shard_place, [[9, 30], [22, 1, 13]])
    tokens = wide_shard_place.source_tokens(source.validation_shards)
    held = ValidationSet(source, length, max_samples)
    per_rank = [list(held.micro_batches(micro, rank, ranks)) for rank in range(ranks)]
    assert len({len(batches) for batches in per_rank}) == 1

    predicted: list[int] = []
    samples = 0
    for together in zip(*per_rank, strict=True):
        for batch in together:
            assert batch.tokens.shape == batch.labels.shape == batch.loss_mask.shape == (micro, length)
            assert batch.position_ids.shape == (micro, length)
            for row in range(micro):
                counted = int(batch.loss_mask[row].sum())
                assert torch.equal(batch.loss_mask[row], (torch.arange(length) < counted).float())
                start = len(predicted)
                np.testing.assert_array_equal(batch.tokens[row, :counted], tokens[start : start + counted])
                predicted += batch.labels[row, :counted].tolist()
                samples += counted > 0
    assert predicted == tokens[1 : 1 + held.predictions].tolist()
    assert samples == held.samples
    if max_samples is None or max_samples * length >= len(tokens) - 1:
        assert held.predictions == len(tokens) - 1
    else:
        assert held.predictions == max_samples * length


def test_bits_per_byte_follow_from_the_manifests_bytes(wide_shard_place: ShardPlace) -> None:
    held = ValidationSet(held_out(wide_shard_place, [[20, 5], [25]]), 8)
    assert held.utf8_bytes_per_token == 3.0  # what the fixture writes into manifests
    # A uniform guess over 2 ** 12 ids costs 12 bits a token: 4 bits for each of its 3 bytes.
    assert held.bits_per_byte(math.log(2**12)) == pytest.approx(4.0, rel=1e-15)


def test_languages_without_held_out_text_are_left_out(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"nn": [[50]], "ca": [[50]], "eu": [[50]]})
    norwegian, catalan, basque = plan.sources
    plan = replace(
        plan,
        sources=(
            replace(
                norwegian,
                validation_shards=(wide_shard_place.write("nn", [9], split="validation"),),
            ),
            catalan,
            replace(
                basque,
                validation_shards=(wide_shard_place.write("eu", [1], split="validation"),),
            ),
        ),
    )
    assert [held.language for held in validation_sets(plan, 8)] == ["nn"]
    with pytest.raises(DataError, match="language eu has 1 validation tokens"):
        ValidationSet(plan.sources[2], 8)
    empty = replace(plan.sources[0].validation_shards[0], utf8_bytes=0)
    with pytest.raises(DataError, match="language nn has 9 validation tokens of 0 bytes"):
        ValidationSet(replace(plan.sources[0], validation_shards=(empty,)), 8)
    with pytest.raises(DataError, match="language ca has 0 validation tokens"):
        ValidationSet(plan.sources[1], 8)


def test_validation_holds_few_shards_open(wide_shard_place: ShardPlace) -> None:
    languages = [f"l{number:02d}" for number in range(12)]
    plan = wide_shard_place.plan({language: [[50]] for language in languages})
    sources = tuple(
        replace(source, validation_shards=(wide_shard_place.write(source.language, [9], split="validation"),))
        for source in plan.sources
    )
    sets = validation_sets(replace(plan, sources=sources), 8)
    for held in sets:
        list(held.micro_batches(1, 0, 1))
    held_open = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    held_open = [path for path in held_open if path.startswith(str(wide_shard_place.directory))]
    assert len(sets) == 12 and len(held_open) == OPEN_VALIDATION_SHARDS_LIMIT
    assert OPEN_SHARDS_LIMIT + OPEN_VALIDATION_SHARDS_LIMIT == 256  # what decision 0010 promises for a run


def test_bad_arguments_are_refused(wide_shard_place: ShardPlace) -> None:
    source = held_out(wide_shard_place, [[20]])
    with pytest.raises(ValueError, match="must be at least 1"):
        ValidationSet(source, 8, max_samples=0)
    with pytest.raises(ValueError, match="must be at least 1"):
        ValidationSet(source, 0)
