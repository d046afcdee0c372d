"""Initial weights depend on the seed and on nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_jobs import initial_weights
from rank_pool import RankPool

LAYERS, INIT_STD = 4, 0.05
Weights = dict[str, NDArray[np.float64]]


def whole_matrices(results: list[dict[tuple[str, int], Any]]) -> Weights:
    """Put the shards of all ranks together, as Megatron's tensor parallelism defines them."""
    shards: dict[str, dict[int, NDArray[np.float64]]] = {}
    for result in results:
        for (name, tensor_rank), rows in result.items():
            shards.setdefault(name, {})[tensor_rank] = np.array(rows)
    return {name: _join(name, [parts[rank] for rank in sorted(parts)]) for name, parts in shards.items()}


def _join(name: str, parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    if "norm" in name or len(parts) == 1:
        assert all((part == parts[0]).all() for part in parts)
        return parts[0]
    if "linear_fc1" in name:  # every rank stacks its part of gate on its part of up
        halves = [np.split(part, 2) for part in parts]
        return np.concatenate([half[side] for side in (0, 1) for half in halves])
    row_parallel = "linear_proj" in name or "linear_fc2" in name
    return np.concatenate(parts, axis=1 if row_parallel else 0)


@pytest.fixture(scope="module")
def single(rank_pool: RankPool) -> Weights:
    return whole_matrices(rank_pool.run(1, initial_weights, []))


@pytest.mark.parametrize(
    ("ranks", "overrides"),
    [
        (2, ["parallel.tensor=2"]),
        (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
        (4, ["parallel.tensor=2", "parallel.pipeline=2", "parallel.pipeline_layout=Ettt|tL"]),
    ],
    ids=["TP2", "PP2xVPP2", "TP2xPP2-uneven"],
)
def test_every_layout_starts_from_the_same_bits(
    rank_pool: RankPool, single: Weights, ranks: int, overrides: list[str]
) -> None:
    found = whole_matrices(rank_pool.run(ranks, initial_weights, overrides))
    assert found.keys() == single.keys()
    for name, matrix in single.items():
        assert np.array_equal(found[name], matrix), name


def test_another_seed_gives_other_weights(rank_pool: RankPool, single: Weights) -> None:
    other = whole_matrices(rank_pool.run(1, initial_weights, ["training.seed=4321"]))
    matrices = [name for name in single if "norm" not in name]
    assert not any(np.array_equal(other[name], single[name]) for name in matrices)


def test_standard_deviations_are_those_of_the_published_configurations(single: Weights) -> None:
    for name, matrix in single.items():
        if "norm" in name:
            assert (matrix == 1).all(), name
            continue
        residual = "linear_proj" in name or "linear_fc2" in name
        expected = INIT_STD / math.sqrt(2 * LAYERS) if residual else INIT_STD
        assert matrix.std() == pytest.approx(expected, rel=0.05), name
        assert abs(matrix.mean()) < 5 * expected / math.sqrt(matrix.size), name


def test_no_two_matrices_share_their_numbers(single: Weights) -> None:
    firsts = {name: matrix.ravel()[:8].tobytes() for name, matrix in single.items() if "norm" not in name}
    assert len(set(firsts.values())) == len(firsts)
