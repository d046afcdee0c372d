"""Fits, or does not fit: the fullest rank, the allowance, and the largest part."""

from __future__ import annotations

from megatron_salamandra.config import load_run_config
from megatron_salamandra.planning import make_plan, verdict_of

GIB = 1 << 30


def test_the_verdict_turns_where_tensors_and_allowance_fill_the_card() -> None:
    ranks = make_plan(load_run_config("salamandra-40b"), 1024).memory
    verdict = verdict_of(ranks, 64)
    assert verdict.needed_bytes >= max(rank.total_bytes for rank in ranks) + 2 * GIB
    assert verdict_of(ranks, verdict.needed_bytes / GIB + 0.01).fits
    assert not verdict_of(ranks, verdict.needed_bytes / GIB - 0.01).fits


def test_the_largest_part_is_named() -> None:
    def sentence(*overrides: str) -> str:
        return verdict_of(make_plan(load_run_config("salamandra-2b", overrides), 1).memory, 40).sentence()

    large = sentence("training.micro_batch_size=16")
    assert large.startswith("does not fit: pipeline rank 0 needs") and "most of it activations" in large
    assert "most of it optimizer state" in sentence("training.recompute=full")
