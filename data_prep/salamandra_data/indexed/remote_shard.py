"""Reading an indexed shard that is behind a URL."""

from __future__ import annotations

import shutil
import tempfile
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salamandra_data.indexed.layout import bin_path, idx_path
from salamandra_data.indexed.shard import IndexedShard
from salamandra_data.storage import BlockCache, CachedRemoteFile, RandomAccess, RemotePath

_COPY_BYTES = 4 << 20

# Who reads documents reads neighbours. Training does not, and reads without a cache.
_BLOCKS = BlockCache(capacity_bytes=32 << 20)


class RemoteShard(IndexedShard):
    """As :class:`IndexedShard`, but ids are read by ranges, and the index once into an unnamed temporary file.

    All remote shards of the process keep 32 MiB of their last ranges together.
    """

    def _ids_at(self, start_token: int, count: int) -> NDArray[Any]:
        ids = np.empty(count, dtype=self.dtype)
        self._data.read_into(ids.data.cast("B"), start_token * self.dtype.itemsize)
        return ids

    @cached_property
    def _data(self) -> RandomAccess:
        data = bin_path(self.prefix)
        assert isinstance(data, RemotePath)
        return CachedRemoteFile(data, self.tokens * self.dtype.itemsize, _BLOCKS)

    @cached_property
    def _index_bytes(self) -> NDArray[np.uint8]:
        with tempfile.TemporaryFile() as copy, idx_path(self.prefix).open("rb") as stream:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
            copy.flush()
            return np.memmap(copy, dtype=np.uint8, mode="r")
