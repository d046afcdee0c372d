"""What the ends of documents mean inside a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DocumentRules:
    """How windows of several documents are read.

    Attributes:
        eod_id: the id that ends a document and still belongs to it.
        separate_attention: no token attends to another document.
        restart_positions: rotary positions count from 0 in every document.
    """

    eod_id: int
    separate_attention: bool
    restart_positions: bool


def document_bounds(tokens: NDArray[np.int64], eod_id: int) -> NDArray[np.int32]:
    """Where documents begin in rows of tokens that are laid end to end, as flash attention takes it.

    Args:
        tokens: [rows, length] int64 ids.
        eod_id: id that ends a document. A row's end ends one too.
    Returns:
        ``cu_seqlens``: int32, ascending, 0 first and the number of tokens last.
    """
    ends = tokens == eod_id
    ends[:, -1] = True
    return np.concatenate(([0], np.flatnonzero(ends) + 1)).astype(np.int32)


def restarted_positions(bounds: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Position of every token in its document.

    Args:
        bounds: from :func:`document_bounds`.
        shape: (rows, length) of the tokens.
    """
    starts = np.repeat(bounds[:-1], np.diff(bounds))
    return (np.arange(bounds[-1]) - starts).astype(np.int64).reshape(shape)
