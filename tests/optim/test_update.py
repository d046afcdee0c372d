"""The two halves of an optimizer step against Megatron-Core's own step."""

from __future__ import annotations

import pytest
from rank_pool import RankPool
from update_jobs import bits_around_a_left_out_update, trajectory

LAYOUTS = {
    "one": (1, []),
    "DP2": (2, []),
    "TP2": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
}


@pytest.mark.parametrize(
    ("layout", "precision", "clip"),
    [
        ("one", "fp32", 0.0),
        ("one", "bf16", 1.0),
        ("DP2", "fp32", 1.0),
        ("DP2", "bf16", 1.0),
        ("TP2", "fp32", 1.0),
    ],
)
def test_both_halves_are_the_whole_step_to_the_bit(
    rank_pool: RankPool, layout: str, precision: str, clip: float
) -> None:
    ranks, overrides = LAYOUTS[layout]
    overrides = [*overrides, f"precision={precision}", f"training.grad_clip={clip}"]
    whole = rank_pool.run(ranks, trajectory, overrides, False)
    halves = rank_pool.run(ranks, trajectory, overrides, True)
    assert halves == whole
    _, norms, _ = halves[0]
    assert len(set(norms)) == 20
    assert max(norms) > 1.0  # so that clipping has something to do
    assert all(found[1] == norms for found in halves)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_the_second_half_every_bit_stays(rank_pool: RankPool, precision: str) -> None:
    for before, after in rank_pool.run(2, bits_around_a_left_out_update, [f"precision={precision}"]):
        assert len(before) > 20
        assert after == before
