"""The keys of the shuffle and the choice of documents: fixed, different, and without a pattern."""

from __future__ import annotations

import numpy as np
import pytest

from salamandra_data.tokenization.document_hash import is_chosen, shuffle_keys

LINES = np.arange(1, 200_001, dtype=np.uint64)


def test_keys_are_those_of_this_format_of_shards() -> None:
    keys = shuffle_keys(0, 0, np.array([1, 2, 3], dtype=np.uint64))
    assert [f"{key:016x}" for key in keys.tolist()] == [
        "7aa91974dc48da4b",
        "e6a7b19cd8196309",
        "910fd3561b8fe9de",
    ]


def test_every_line_of_a_file_has_its_own_key() -> None:
    assert np.unique(shuffle_keys(1, 2, LINES)).size == LINES.size


@pytest.mark.parametrize("lowest_bit", [0, 24, 56])
def test_keys_are_spread_evenly_in_all_their_bits(lowest_bit: int) -> None:
    keys = shuffle_keys(3, 4, LINES)
    found = np.bincount(((keys >> np.uint64(lowest_bit)) & np.uint64(255)).astype(np.int64), minlength=256)
    expected = LINES.size / 256
    chi_squared = ((found - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < 5 * (2 * 255) ** 0.5


@pytest.mark.parametrize(("seed", "file"), [(0, 1), (1, 0), (-1, 0), (0, 2**31)])
def test_orders_of_other_seeds_and_files_are_unrelated(seed: int, file: int) -> None:
    order, other = (np.argsort(shuffle_keys(*place, LINES)) for place in ((0, 0), (seed, file)))
    assert abs(np.corrcoef(order, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(order, LINES)[0, 1]) < 0.02


@pytest.mark.parametrize("share", [0.0, 0.005, 0.5, 1.0])
def test_the_chosen_are_the_share_wherever_they_are_in_the_order(share: float) -> None:
    keys = np.sort(shuffle_keys(5, 6, LINES))
    for part in np.array_split(is_chosen(keys, share), 4):
        assert part.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / part.size) ** 0.5)
