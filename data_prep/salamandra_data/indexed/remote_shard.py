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
from salamandra_data.storage import RandomAccess, open_random_access

_COPY_BYTES = 4 << 20


class RemoteShard(IndexedShard):
    """As :class:`IndexedShard`, with ids read by ranges, and the index read once into an unnamed temporary file."""

    def _ids_at(self, start_token: int, count: int) -> NDArray[Any]:
        ids = np.empty(count, dtype=self.dtype)
        self._data.read_into(ids.data.cast("B"), start_token * self.dtype.itemsize)
        return ids

    @cached_property
    def _data(self) -> RandomAccess:
        return open_random_access(bin_path(self.prefix), self.tokens * self.dtype.itemsize)

    @cached_property
    def _index_bytes(self) -> NDArray[np.uint8]:
        with tempfile.TemporaryFile() as copy, idx_path(self.prefix).open("rb") as stream:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
            copy.flush()
            return np.memmap(copy, dtype=np.uint8, mode="r")
