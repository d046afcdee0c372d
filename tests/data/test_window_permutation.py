from __future__ import annotations

import hashlib
import math
from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_salamandra.data.window_permutation import WindowPermutation


def reference(windows: int, seed: int, epoch: int, source: str, index: int) -> int:
    """The documented format, written a second time and for clarity only."""
    columns = next(c for c in range(math.isqrt(windows), windows + 2) if c >= 1 and c * c >= windows)
    rows = math.ceil(windows / columns)
    digest = hashlib.shake_128(f"salamandra-window-order/1|{seed}|{epoch}|{source}".encode()).digest(96)
    keys = [int.from_bytes(digest[8 * r : 8 * r + 8], "little") for r in range(12)]

    def mix(z: int) -> int:
        z %= 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    value = index
    while True:
        high, low = value // columns, value % columns
        for r, key in enumerate(keys):
            if r % 2 == 0:
                low = (low + mix(high * 0x9E3779B97F4A7C15 + key)) % columns
            else:
                high = (high + mix(low * 0x9E3779B97F4A7C15 + key)) % rows
        value = high * columns + low
        if value < windows:
            return value


@given(st.integers(1, 3000), st.integers(0, 2**64), st.integers(0, 50), st.sampled_from(["en", "ca", "code"]))
@settings(max_examples=100, deadline=None)
def test_every_window_exactly_once(windows: int, seed: int, epoch: int, source: str) -> None:
    order = WindowPermutation(windows, seed=seed, epoch=epoch, source=source)
    assert sorted(order(index) for index in range(windows)) == list(range(windows))


@given(st.integers(1, 10**15), st.integers(0, 2**40), st.integers(0, 9), st.text(max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_order_is_the_documented_one(
    windows: int, seed: int, epoch: int, source: str, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, windows - 1))
    order = WindowPermutation(windows, seed=seed, epoch=epoch, source=source)
    assert order(index) == reference(windows, seed, epoch, source, index) < windows


def test_golden_order_never_changes() -> None:
    """Frozen: a run in progress must meet the same samples after an upgrade."""

    def first(windows: int, epoch: int, source: str) -> list[int]:
        order = WindowPermutation(windows, seed=1234, epoch=epoch, source=source)
        return [order(index) for index in range(min(windows, 10))]

    assert first(1, 0, "en") == [0]
    assert first(2, 0, "en") == [1, 0]
    assert first(10, 0, "ca") == [6, 1, 8, 4, 7, 3, 0, 9, 5, 2]
    assert first(10, 1, "ca") == [8, 7, 5, 1, 0, 2, 9, 3, 6, 4]
    order = WindowPermutation(116_350_000, seed=1234, epoch=3, source="en")
    far = [order(index) for index in (0, 1, 2, 58_000_000, 116_349_999)]
    assert far == [9_161_008, 53_764_696, 27_144_550, 75_934_210, 82_135_457]


def test_seed_epoch_and_source_each_change_the_order() -> None:
    orders = {
        tuple(map(WindowPermutation(200, seed=seed, epoch=epoch, source=source), range(200)))
        for seed in (0, 1)
        for epoch in (0, 1)
        for source in ("es", "pt")
    }
    assert len(orders) == 8


@pytest.mark.parametrize("windows", [2, 3, 4, 5])
def test_small_sources_reach_all_orders_about_equally_often(windows: int) -> None:
    draws = 60 * math.factorial(windows)
    seen = Counter(
        tuple(map(WindowPermutation(windows, seed=seed, epoch=0, source="nn"), range(windows)))
        for seed in range(draws)
    )
    chi_square = sum((seen[order] - 60) ** 2 / 60 for order in permutations(range(windows)))
    freedom = math.factorial(windows) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_windows_spread_evenly_over_the_source() -> None:
    """Any thousand consecutive samples draw from all over the source, and neighbours are not kept together."""
    windows = 1_000_000
    order = WindowPermutation(windows, seed=7, epoch=0, source="de")
    for start in (0, 333_000, 999_000):
        drawn = [order(index) for index in range(start, start + 1000)]
        tenths = Counter(window * 10 // windows for window in drawn)
        assert sum((tenths[tenth] - 100) ** 2 / 100 for tenth in range(10)) < 9 + 5 * math.sqrt(18)
        assert sum(abs(a - b) == 1 for a, b in pairwise(drawn)) == 0


def test_out_of_range_is_refused() -> None:
    order = WindowPermutation(5, seed=0, epoch=0, source="mt")
    for index in (-1, 5):
        with pytest.raises(ValueError, match=r"outside \[0, 5\)"):
            order(index)
    with pytest.raises(ValueError, match="at least one window"):
        WindowPermutation(0, seed=0, epoch=0, source="mt")
