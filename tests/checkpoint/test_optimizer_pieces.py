"""A stretch of a flattened tensor is cut into few blocks that cover it exactly."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.checkpoint.optimizer_pieces import blocks_of_stretch


@given(data=st.data(), shape=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_blocks_cover_a_stretch_in_order(data: st.DataObject, shape: list[int]) -> None:
    total = math.prod(shape)
    start = data.draw(st.integers(0, total))
    end = data.draw(st.integers(start, total))
    tensor = np.arange(total).reshape(shape)
    blocks = blocks_of_stretch(tuple(shape), start, end)
    found = [
        tensor[tuple(slice(o, o + s) for o, s in zip(offset, size, strict=True))].ravel()
        for offset, size in blocks
    ]
    assert np.array_equal(np.concatenate([*found, np.empty(0, int)]), np.arange(start, end))
    assert len(blocks) <= 2 * (len(shape) - 1) + 1
