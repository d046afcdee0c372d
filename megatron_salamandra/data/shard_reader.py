"""Reads any span of a source's tokens, its shards taken end to end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from megatron_salamandra.data.open_shards import OpenShards
from salamandra_data.blend_plan import ShardRef
from salamandra_data.storage import Location


@dataclass(frozen=True)
class ShardSpan:
    """Consecutive tokens of one shard."""

    path: Location  # prefix of the .bin and .idx
    start_token: int
    tokens: int


class SourceReader:
    """The tokens of one source as one long sequence.

    Args:
        shards: in the order of the blend plan.
        open_shards: shared by the readers of a run, so that the cap on open files is the run's.
    """

    def __init__(self, shards: Sequence[ShardRef], open_shards: OpenShards) -> None:
        self._shards = tuple(shards)
        self._ends = tuple(accumulate(shard.tokens for shard in self._shards))
        self._open_shards = open_shards

    @property
    def tokens(self) -> int:
        """Tokens of all shards together, each document's closing EOD included."""
        return self._ends[-1] if self._ends else 0

    def spans(self, start: int, count: int) -> list[ShardSpan]:
        """Return where tokens ``[start, start + count)`` of the source lie, shard by shard."""
        return [span for _, span in self._spans(start, count)]

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Return tokens ``[start, start + count)`` of the source, [count] int64.

        Raises:
            DataError: a shard cannot be opened or read; names its path.
        """
        out = np.empty(count, dtype=np.int64)
        filled = 0
        for reference, span in self._spans(start, count):
            with self._open_shards.reading(reference) as shard:
                shard.read_into(out[filled : filled + span.tokens], span.start_token)
            filled += span.tokens
        return out

    def _spans(self, start: int, count: int) -> list[tuple[ShardRef, ShardSpan]]:
        if start < 0 or count < 0 or start + count > self.tokens:
            raise ValueError(f"tokens [{start}, {start + count}) are outside the source's [0, {self.tokens})")
        spans = []
        number = bisect_right(self._ends, start)
        while count > 0:
            shard = self._shards[number]
            offset = start - (self._ends[number] - shard.tokens)
            taken = min(count, shard.tokens - offset)
            if taken > 0:  # an empty shard has nothing to give
                spans.append((shard, ShardSpan(shard.path, offset, taken)))
            start, count, number = start + taken, count - taken, number + 1
        return spans
