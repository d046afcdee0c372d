"""What one forward pass of one data-parallel rank is fed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of shape [micro batch, sequence], contiguous, on the CPU; none shares memory with another batch.

    Attributes:
        tokens: int64 input ids.
        labels: int64 ids to predict: the tokens one further.
        loss_mask: float32, 1 where the prediction counts, 0 where it is padding.
        position_ids: int64, 0 .. sequence - 1 in every row, running over document boundaries.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    position_ids: torch.Tensor


def micro_batch(windows: NDArray[np.int64], predictions: NDArray[np.int64] | None = None) -> MicroBatch:
    """Make a micro-batch of token windows.

    Args:
        windows: [micro batch, sequence + 1] int64.
        predictions: [micro batch] int64, how many predictions of each row count, from its start; all of them
            when not given. What lies behind is padding.
    """
    rows, length = windows.shape[0], windows.shape[1] - 1
    if predictions is None:
        loss_mask = np.ones((rows, length), dtype=np.float32)
    else:
        loss_mask = (np.arange(length) < predictions[:, None]).astype(np.float32)
    return MicroBatch(
        tokens=torch.from_numpy(windows[:, :-1].copy()),
        labels=torch.from_numpy(windows[:, 1:].copy()),
        loss_mask=torch.from_numpy(loss_mask),
        position_ids=torch.from_numpy(np.tile(np.arange(length, dtype=np.int64), (rows, 1))),
    )
