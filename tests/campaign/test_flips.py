"""The fault campaign's short form: a flipped bit in a file of each kind of reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_campaign import Kills
from flips import READERS, Flips

SEED = 11
CASES = 24


@pytest.fixture(scope="module")
def flips(blend: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flips]:
    out = tmp_path_factory.mktemp("flips")
    yield Flips(out, SEED, blend, Kills(out, SEED, blend).undisturbed)


@pytest.mark.parametrize("reader", sorted(set(READERS)))
def test_a_flipped_bit_is_found_before_it_does_harm(flips: Flips, reader: str) -> None:
    numbers = [number for number in range(CASES) if READERS[number % len(READERS)] == reader]
    for number in numbers[:1] if reader in ("resume", "start") else numbers:
        result = flips.attempt(number)
        assert result["problems"] == [], result["what"]
