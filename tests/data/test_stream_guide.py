"""The worked example of docs/guides/stream-and-blend.md is what the stream does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_salamandra.data import SampleStream
from salamandra_data.blend_plan import BlendPlan

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "stream-and-blend.md"


@pytest.fixture
def stream(paper_plan: Callable[..., BlendPlan]) -> SampleStream:
    return SampleStream(paper_plan({"ca": (1001, 2), "en": (6001, "0.5"), "hu": (2001, 1)}), 100, seed=1234)


def test_samples_of_the_guide(stream: SampleStream) -> None:
    rows = [
        f"| {k} | {place.language} | {place.ordinal} | {place.epoch} | {place.window} | {place.spans[0].start_token} |"
        for k, place in ((k, stream.locate(k)) for k in range(8))
    ]
    assert "\n".join(rows) in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("consumed", [70, 140])
def test_ledgers_of_the_guide(stream: SampleStream, consumed: int) -> None:
    rows = [f"| {entry.language} | {entry.samples} | {entry.epochs} |" for entry in stream.ledger(consumed)]
    text = GUIDE.read_text(encoding="utf-8")
    assert "\n".join(rows) in text[text.index(f"after {consumed} samples") :]
