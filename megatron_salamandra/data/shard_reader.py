"""Reads any span of a source's tokens, its shards taken end to end."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from salamandra_data.blend_plan import ShardRef
from salamandra_data.errors import DataError
from salamandra_data.indexed import IndexedShard, bin_path, idx_path
from salamandra_data.storage import Location, open_random_access

# The published blends have 226 and 241 shards: none of them is ever opened twice. One file descriptor each.
OPEN_SHARDS_LIMIT = 256


@dataclass(frozen=True)
class ShardSpan:
    """Consecutive tokens of one shard."""

    path: Location  # prefix of the .bin and .idx
    start_token: int
    tokens: int


class OpenShard:
    """One shard's open ``.bin``, checked against its ``.idx`` and against the plan that counted it.

    Any number of threads may read at once. A local shard holds one file descriptor, a remote one none.

    Raises:
        DataError: a file is missing or damaged, or is not the one the blend plan counted.
    """

    def __init__(self, reference: ShardRef) -> None:
        shard = IndexedShard.open(reference.path)
        if shard.tokens != reference.tokens:
            raise DataError(
                f"{idx_path(reference.path)}: the shard holds {shard.tokens} tokens, but the blend plan counted "
                f"{reference.tokens}\n  it was rewritten since; make the blend plan again, or restore the shard"
            )
        self._dtype = shard.dtype
        self._file = open_random_access(bin_path(reference.path), shard.tokens * shard.dtype.itemsize)

    def read_into(self, out: NDArray[np.int64], start_token: int) -> None:
        """Fill ``out`` with the tokens from ``start_token`` on.

        Raises:
            DataError: the file ends early or cannot be read.
        """
        raw = np.empty(out.size, dtype=self._dtype)
        self._file.read_into(raw.data.cast("B"), start_token * self._dtype.itemsize)
        out[:] = raw


class OpenShards:
    """Shards, opened at their first use; the least recently used is closed above ``limit``.

    One object may serve several sources and several threads.
    """

    def __init__(self, limit: int = OPEN_SHARDS_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"at least one shard must be allowed to be open; got {limit}")
        self._limit = limit
        self._open: OrderedDict[Location, OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, reference: ShardRef) -> OpenShard:
        """Return the open shard.

        Raises:
            DataError: it cannot be opened, or is not the one the blend plan counted.
        """
        with self._lock:
            shard = self._open.get(reference.path)
            if shard is not None:
                self._open.move_to_end(reference.path)
                return shard
            try:
                shard = OpenShard(reference)
            except OSError as error:
                raise DataError(f"{reference.path}: cannot be opened: {error.strerror}") from error
            self._open[reference.path] = shard
            if len(self._open) > self._limit:
                self._open.popitem(last=False)  # closed once no thread reads it any more
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
            DataError: a shard cannot be opened or read; names its path.
        """
        out = np.empty(count, dtype=np.int64)
        filled = 0
        for reference, span in self._spans(start, count):
            self._open_shards.get(reference).read_into(out[filled : filled + span.tokens], span.start_token)
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
