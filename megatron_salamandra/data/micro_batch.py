"""What one forward pass of one data-parallel rank is fed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from megatron_salamandra.data.documents import DocumentRules, document_bounds, restarted_positions


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of shape [micro batch, sequence], for reading only: on the CPU, or copied to the device by the trainer.

    ``tokens`` and ``labels`` are views of the same windows, so they are contiguous for a micro-batch of one sample
    only; a mask or positions that are the same in every batch are one tensor. That is 8 bytes per token, not 28.

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
        windows: [micro batch, sequence + 1] int64; not to be written to afterwards.
        predictions: [micro batch] int64, how many predictions of each row count, from its start; all of them
            when not given. What lies behind is padding.
        documents: how the ends of documents count; not at all when not given.
    """
    rows, length = windows.shape[0], windows.shape[1] - 1
    loss_mask = _all_count(rows, length)
    if predictions is not None:
        loss_mask = torch.from_numpy((np.arange(length) < predictions[:, None]).astype(np.float32))
    positions = _places_in_window(rows, length)
    bounds = None if documents is None else document_bounds(windows[:, :-1], documents.eod_id)
    if documents is not None and bounds is not None and documents.restart_positions:
        positions = torch.from_numpy(restarted_positions(bounds, (rows, length)))
    separate = documents is not None and documents.separate_attention
    whole = torch.from_numpy(windows)
    return MicroBatch(
        tokens=whole[:, :-1],
        labels=whole[:, 1:],
        loss_mask=loss_mask,
        position_ids=positions,
        document_bounds=torch.from_numpy(bounds) if separate else None,
    )


# A run has one shape for training and, where it validates, the same one there.
@lru_cache(maxsize=4)
def _all_count(rows: int, length: int) -> torch.Tensor:
    return torch.ones((rows, length), dtype=torch.float32)


@lru_cache(maxsize=4)
def _places_in_window(rows: int, length: int) -> torch.Tensor:
    return torch.arange(length, dtype=torch.int64).repeat(rows, 1)
