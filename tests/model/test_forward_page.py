"""The forward pass written out in model/spec.py against the modules that train."""

from __future__ import annotations

import numpy as np
import pytest
from rank_jobs import logits_of_model_and_page
from rank_pool import RankPool


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.query_groups=4", "model.norm_eps=0.1"],
        ["model.query_groups=1", "model.rope_base=500", "precision=bf16"],
        ["model.rope_scaling.factor=4", "model.rope_scaling.original_sequence_length=16"],
    ],
    ids=["gqa", "mha", "mqa-bf16", "stretched-rope"],
)
def test_the_page_computes_what_the_built_model_computes(rank_pool: RankPool, overrides: list[str]) -> None:
    ((built, written),) = rank_pool.run(1, logits_of_model_and_page, overrides)
    assert np.abs(built).max() > 0.1
    assert np.array_equal(built, written)
