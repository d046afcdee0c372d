"""Reads any span of a source's tokens, its shards taken end to end."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salamandra_data.blend_plan import ShardRef
from salamandra_data.errors import DataError
from salamandra_data.indexed import IndexedShard

OPEN_SHARDS_LIMIT = 64


@dataclass(frozen=True)
class ShardSpan:
    """Consecutive tokens of one shard."""

    path: Path  # prefix of the .bin and .idx
    start_token: int
    tokens: int


class OpenShards:
    """Memory-mapped shards, opened at their first use; the least recently used is dropped above ``limit``.

    One object may serve several sources and several threads.
    """

    def __init__(self, limit: int = OPEN_SHARDS_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"at least one shard must be allowed to be open; got {limit}")
        self._limit = limit
        self._open: OrderedDict[Path, IndexedShard] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, reference: ShardRef) -> IndexedShard:
        """Return the open shard.

        Raises:
            DataError: a file is missing or damaged, or is not the one the blend plan counted.
        """
        with self._lock:
            shard = self._open.get(reference.path)
            if shard is not None:
                self._open.move_to_end(reference.path)
                return shard
            shard = _open_counted(reference)
            self._open[reference.path] = shard
            if len(self._open) > self._limit:
                self._open.popitem(last=False)  # unmapped once no reader holds it any more
            return shard


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
            DataError: a shard can't be opened or read; names its path.
        """
        out = np.empty(count, dtype=np.int64)
        filled = 0
        for reference, span in self._spans(start, count):
            try:
                tokens = self._open_shards.get(reference).read(span.start_token, span.tokens)
            except OSError as error:
                raise DataError(
                    f"{span.path}: cannot read tokens [{span.start_token}, {span.start_token + span.tokens}): "
                    f"{error}"
                ) from error
            out[filled : filled + span.tokens] = tokens
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


def _open_counted(reference: ShardRef) -> IndexedShard:
    shard = IndexedShard.open(reference.path)
    if shard.tokens != reference.tokens:
        raise DataError(
            f"{reference.path}.idx: holds {shard.tokens} tokens, but the blend plan counted {reference.tokens}\n"
            "  the shard was rewritten since; make the blend plan again, or restore the shard"
        )
    return shard
