"""Micro-batches share what is constant, and what runs over them only reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rank_jobs import changed_batch_tensors
from rank_pool import RankPool

from megatron_salamandra.data.documents import DocumentRules
from megatron_salamandra.data.micro_batch import micro_batch

EOD = 2


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["kernels.loss_chunk_tokens=24"],
        [f"kernels.{key}=reference" for key in ("rope", "swiglu", "loss", "weight_gradient")],
    ],
    ids=["fused", "chunked", "reference"],
)
def test_no_pass_writes_to_a_micro_batch(rank_pool: RankPool, overrides: list[str], samples: int) -> None:
    assert rank_pool.run(1, changed_batch_tensors, overrides, samples) == [[]]


def test_what_differs_between_batches_is_not_shared() -> None:
    windows = np.array([[5, EOD, 6, 7], [5, 6, 7, 8]])
    plain = micro_batch(windows)
    assert micro_batch(windows + 1).loss_mask is plain.loss_mask
    padded = micro_batch(windows, np.array([3, 1]))
    assert padded.loss_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    restarted = micro_batch(windows, documents=DocumentRules(EOD, False, True))
    assert restarted.position_ids.tolist() == [[0, 1, 0], [0, 1, 2]]
    assert torch.equal(plain.loss_mask, torch.ones(2, 3))
    assert plain.position_ids.tolist() == [[0, 1, 2]] * 2
