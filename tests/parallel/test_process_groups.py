"""The groups of ranks that talk to each other, in worlds far larger than this host."""

from __future__ import annotations

from rank_jobs import groups_in_a_large_world
from rank_pool import RankPool


def test_a_rank_of_a_large_world_joins_its_own_groups_alone(rank_pool: RankPool) -> None:
    """1,024 ranks make thousands of groups; built eagerly, the world would meet for each of them."""
    ((made, joined, bound_to_device),) = rank_pool.run(1, groups_in_a_large_world, 1024, 4, 2)
    assert made > 1000
    assert joined < 40
    assert not bound_to_device
