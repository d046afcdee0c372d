"""A curve of bounded size shows every extreme."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.report.curve import Curve


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000), st.integers(1, 40))
def test_extremes_mean_and_ends_survive_in_bounded_memory(values: list[float], spans: int) -> None:
    curve = Curve(spans)
    for step, value in enumerate(values, start=1):
        curve.add(step, value)
    assert len(curve.spans) <= 2 * spans
    assert (curve.low, curve.high) == (min(values), max(values))
    assert curve.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-6, abs=1e-6)
    assert (curve.first, curve.last) == ((1, values[0]), (len(values), values[-1]))
    assert sum(span.count for span in curve.spans) == curve.count == len(values)
    for before, after in zip(curve.spans, curve.spans[1:], strict=False):
        assert before.last_x < after.first_x


def test_a_step_that_comes_again_takes_back_what_was_after_it() -> None:
    curve = Curve()
    for step, value in [(1, 5.0), (2, 4.0), (3, 99.0), (2, 3.0), (3, 2.0)]:
        curve.add(step, value)
    assert [span.mean for span in curve.spans] == [5.0, 3.0, 2.0]
    assert (curve.count, curve.high) == (3, 5.0)


def test_what_is_no_number_is_noted_and_not_drawn() -> None:
    curve = Curve()
    for step, value in enumerate([1.0, math.nan, math.inf, 2.0], start=1):
        curve.add(step, value)
    assert (curve.not_finite, curve.count, curve.high) == ([2, 3], 2, 2.0)
