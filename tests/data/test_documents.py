"""Where documents end inside windows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megatron_salamandra.data.documents import DocumentRules, document_bounds, restarted_positions
from megatron_salamandra.data.micro_batch import micro_batch

EOD = 2
TOKENS = hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 20)), elements=st.integers(0, 4))


@given(TOKENS)
def test_bounds_and_positions_follow_each_token(tokens: np.ndarray) -> None:
    bounds = document_bounds(tokens, EOD)
    positions = restarted_positions(bounds, tokens.shape)
    expected_bounds, place = [0], 0
    for row, row_positions in zip(tokens, positions, strict=True):
        since = 0
        for column, (token, position) in enumerate(zip(row, row_positions, strict=True)):
            assert position == since
            place, since = place + 1, since + 1
            if token == EOD or column == len(row) - 1:
                expected_bounds.append(place)
                since = 0
    assert bounds.tolist() == expected_bounds and bounds.dtype == np.int32


def test_each_rule_acts_alone() -> None:
    windows = np.array([[5, EOD, 6, 7]])
    plain = micro_batch(windows)
    assert plain.document_bounds is None and plain.position_ids.tolist() == [[0, 1, 2]]
    masked = micro_batch(windows, documents=DocumentRules(EOD, True, False))
    assert masked.document_bounds is not None and masked.document_bounds.tolist() == [0, 2, 3]
    assert masked.position_ids.tolist() == [[0, 1, 2]]
    restarted = micro_batch(windows, documents=DocumentRules(EOD, False, True))
    assert restarted.document_bounds is None and restarted.position_ids.tolist() == [[0, 1, 0]]
    assert restarted.labels.tolist() == plain.labels.tolist()
