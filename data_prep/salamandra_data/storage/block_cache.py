"""Small reads of objects in a row, such as document after document, by requests for whole blocks."""

from __future__ import annotations

import threading
from collections import OrderedDict

from salamandra_data.storage.location import RemotePath
from salamandra_data.storage.random_access import RemoteFile

BLOCK_BYTES = 128 << 10
"""Some fifty documents of 700 tokens; a request of this size is latency more than transfer."""


class BlockCache:
    """The most recently used blocks of any number of open objects, for any number of threads.

    Args:
        capacity_bytes: how much is kept at most, over all objects.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._blocks: OrderedDict[tuple[object, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes of all blocks that are kept."""
        return self._bytes

    def get(self, owner: object, number: int) -> bytes | None:
        """The block, if it is still there."""
        with self._lock:
            block = self._blocks.get((owner, number))
            if block is not None:
                self._blocks.move_to_end((owner, number))
            return block

    def put(self, owner: object, number: int, block: bytes) -> None:
        """Keep a block; the least recently used ones go."""
        with self._lock:
            replaced = self._blocks.pop((owner, number), b"")
            self._blocks[owner, number] = block
            self._bytes += len(block) - len(replaced)
            while self._bytes > self._capacity_bytes:
                self._bytes -= len(self._blocks.popitem(last=False)[1])


class CachedRemoteFile:
    """An object read through a :class:`BlockCache`; reads of a block or more go past it.

    Args:
        path: of the object.
        size: its bytes.
        cache: shared by any number of objects.
    """

    def __init__(
        self, path: RemotePath, size: int, cache: BlockCache, *, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._size, self._cache, self._block_bytes = size, cache, block_bytes
        self._file = RemoteFile(path)
        self._owner = object()  # not the URL: what is opened again may have been written again

    def read_into(self, out: memoryview, position: int) -> None:
        """As :meth:`RandomAccess.read_into`; at most one request."""
        end = position + len(out)
        first, last = position // self._block_bytes, (end - 1) // self._block_bytes
        if not out or len(out) >= self._block_bytes or end > self._size:
            self._file.read_into(out, position)
            return
        # Shorter than a block, so in one or two of them.
        known = {number: self._cache.get(self._owner, number) for number in (first, last)}
        missing = [number for number, block in known.items() if block is None]
        if missing:
            start = missing[0] * self._block_bytes
            fetched = bytearray(min((missing[-1] + 1) * self._block_bytes, self._size) - start)
            self._file.read_into(memoryview(fetched), start)
            for number in missing:
                place = number * self._block_bytes - start
                block = bytes(fetched[place : place + self._block_bytes])
                self._cache.put(self._owner, number, block)
                known[number] = block
        joined = b"".join(block for block in known.values() if block is not None)
        offset = position - first * self._block_bytes
        out[:] = joined[offset : offset + len(out)]

    def close(self) -> None:
        """As :meth:`RandomAccess.close`; what is kept of it stays."""
