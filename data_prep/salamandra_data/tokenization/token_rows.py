"""The ids of several texts in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenRows:
    """Rows of ids, one after the other.

    Attributes:
        ids: [sum of lengths], int32 or uint32.
        lengths: [rows], int64.
    """

    ids: NDArray[Any]
    lengths: NDArray[np.int64]

    @classmethod
    def joined(cls, rows: Sequence[NDArray[Any]]) -> TokenRows:
        """The rows of a list of arrays."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
        return cls(ids, lengths)

    def split(self) -> list[NDArray[Any]]:
        """One array per row; views, not copies."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.ids[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []

    def with_last(self, last_id: int) -> TokenRows:
        """The rows, each with ``last_id`` at its end."""
        longer = self.lengths + 1
        ids = np.empty(self.ids.size + longer.size, dtype=np.int32)
        is_last = np.zeros(ids.size, dtype=bool)
        is_last[np.cumsum(longer) - 1] = True
        ids[is_last] = last_id
        ids[~is_last] = self.ids
        return TokenRows(ids, longer)
