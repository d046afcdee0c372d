"""Shards that are kept open, under a cap on file descriptors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from megatron_salamandra.data.block_checks import BlockChecks
from salamandra_data.blend_plan import ShardRef
from salamandra_data.errors import DataError
from salamandra_data.shards import IndexedShard, bin_path, idx_path
from salamandra_data.storage import Location, open_random_access

OPEN_SHARDS_LIMIT = 248
"""Of training. The published blends have 226 and 241 shards: none of them is ever opened twice."""

OPEN_VALIDATION_SHARDS_LIMIT = 8
"""Of validation, which walks its shards one after the other. The two make 256 descriptors for a run."""


class OpenShard:
    """One shard's open ``.bin``, checked against its ``.idx`` and against the plan that counted it.

    Any number of threads may read at once. A local shard holds one file descriptor, a remote one none.

    Raises:
        DataError: a file is missing or damaged, or is not the one the blend plan counted.
    """

    def __init__(self, reference: ShardRef, checks: BlockChecks) -> None:
        shard = IndexedShard.open(reference.path)
        if shard.tokens != reference.tokens:
            raise DataError(
                f"{idx_path(reference.path)}: the shard holds {shard.tokens} tokens, but the blend plan counted "
                f"{reference.tokens}\n  it was rewritten since; make the blend plan again, or restore the shard"
            )
        self._reference, self._checks, self._dtype = reference, checks, shard.dtype
        try:
            self._file = open_random_access(bin_path(reference.path))
        except OSError as error:
            raise DataError(f"{bin_path(reference.path)}: cannot be opened: {error.strerror}") from error

    def read_into(self, out: NDArray[np.int64], start_token: int) -> None:
        """Fill ``out`` with the tokens from ``start_token`` on.

        Raises:
            DataError: the file ends early, cannot be read, or is found to be damaged.
        """
        raw = np.empty(out.size, dtype=self._dtype)
        position = start_token * self._dtype.itemsize
        self._checks.before_reading(self._reference, self._file, position, raw.nbytes)
        self._file.read_into(raw.data.cast("B"), position)
        out[:] = raw

    def close(self) -> None:
        """Close the file; no thread may be reading."""
        self._file.close()


class _Slot:
    """A shard that is open, or about to be: opening one does not keep readers of others waiting."""

    def __init__(self) -> None:
        self.readers = 0  # guarded by the lock of OpenShards
        self._opening = threading.Lock()
        self._shard: OpenShard | None = None

    def shard(self, reference: ShardRef, checks: BlockChecks) -> OpenShard:
        with self._opening:
            if self._shard is None:
                self._shard = OpenShard(reference, checks)
            return self._shard

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()


class OpenShards:
    """Shards, opened at their first use; the least recently used is closed before one too many is opened.

    One object may serve several sources and several threads. A shard that is being read stays open, so more than
    ``limit`` are open only while more than ``limit`` threads read different ones.

    Args:
        checks: of what is read; nothing is checked when not given.
    """

    def __init__(self, limit: int = OPEN_SHARDS_LIMIT, checks: BlockChecks | None = None) -> None:
        if limit < 1:
            raise ValueError(f"at least one shard must be allowed to be open; got {limit}")
        self._limit = limit
        self._checks = checks or BlockChecks(0)
        self._slots: OrderedDict[Location, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, reference: ShardRef) -> Iterator[OpenShard]:
        """Hold a shard open while it is read.

        Raises:
            DataError: it cannot be opened, or is not the one the blend plan counted.
        """
        with self._lock:
            slot = self._slots.get(reference.path)
            if slot is None:
                self._close_down_to(self._limit - 1)
                slot = self._slots[reference.path] = _Slot()
            else:
                self._slots.move_to_end(reference.path)
            slot.readers += 1
        try:
            yield slot.shard(reference, self._checks)
        finally:
            with self._lock:
                slot.readers -= 1
                self._close_down_to(self._limit)

    def _close_down_to(self, count: int) -> None:
        if len(self._slots) <= count:
            return
        idle = [path for path, slot in self._slots.items() if slot.readers == 0]
        for path in idle[: len(self._slots) - count]:
            self._slots.pop(path).close()
