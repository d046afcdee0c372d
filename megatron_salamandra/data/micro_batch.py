"""What one forward pass of one data-parallel rank is fed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from megatron_salamandra.data.documents import DocumentRules, document_bounds, restarted_positions


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of shape [micro batch, sequence], contiguous, on the CPU; none shares memory with another batch.

    Attributes:
        tokens: int64 input ids.
        labels: int64 ids to predict: the tokens one further.
        loss_mask: float32, 1 where the prediction counts, 0 where it is padding.
        position_ids: int64, 0 .. sequence - 1 in every row, or counted anew in every document.
        document_bounds: None where documents attend to each other; else int32 [documents + 1], the ends of the
            documents in the rows laid end to end, 0 first.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    position_ids: torch.Tensor
    document_bounds: torch.Tensor | None = None


def micro_batch(
    windows: NDArray[np.int64],
    predictions: NDArray[np.int64] | None = None,
    documents: DocumentRules | None = None,
) -> MicroBatch:
    """Make a micro-batch of token windows.

    Args:
        windows: [micro batch, sequence + 1] int64.
        predictions: [micro batch] int64, how many predictions of each row count, from its start; all of them
            when not given. What lies behind is padding.
        documents: how the ends of documents count; not at all when not given.
    """
    rows, length = windows.shape[0], windows.shape[1] - 1
    if predictions is None:
        loss_mask = np.ones((rows, length), dtype=np.float32)
    else:
        loss_mask = (np.arange(length) < predictions[:, None]).astype(np.float32)
    positions = np.tile(np.arange(length, dtype=np.int64), (rows, 1))
    bounds = None if documents is None else document_bounds(windows[:, :-1], documents.eod_id)
    if documents is not None and bounds is not None and documents.restart_positions:
        positions = restarted_positions(bounds, (rows, length))
    separate = documents is not None and documents.separate_attention
    return MicroBatch(
        tokens=torch.from_numpy(windows[:, :-1].copy()),
        labels=torch.from_numpy(windows[:, 1:].copy()),
        loss_mask=torch.from_numpy(loss_mask),
        position_ids=torch.from_numpy(positions),
        document_bounds=torch.from_numpy(bounds) if separate else None,
    )
