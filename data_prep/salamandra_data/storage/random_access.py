"""Reading any bytes of a file or object, from several threads at once.

Small reads of objects in a row, such as document after document, become requests for whole blocks.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Protocol, cast

from salamandra_data.errors import DataError
from salamandra_data.storage.location import Location, RemotePath, ServerLimit
from salamandra_data.storage.retries import passes_locally, with_retries

BLOCK_BYTES = 128 << 10
"""Some fifty documents of 700 tokens; a request of this size is latency more than transfer."""


class RandomAccess(Protocol):
    """An open file or object."""

    def read_into(self, out: memoryview, position: int) -> None:
        """Fill ``out`` with the bytes from ``position`` on.

        Raises:
            DataError: it ends early or cannot be read, or a server gives whole objects only; names it.
        """

    def close(self) -> None:
        """Let go of it; no thread may be reading. May be called twice."""


class LocalFile:
    """A file read with ``preadv``: one descriptor, until it is closed or nobody refers to it any more.

    Not through a memory map: a file system that fails or a file that was cut short then gives an error with the
    path, where a map would kill the process by SIGBUS. A cold window is one request instead of a row of page faults.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = with_retries(
            f"{path}: opening it",
            lambda: open(path, "rb", buffering=0),  # noqa: SIM115 - outlives this method
            passes_locally,
        )
        self._bytes = os.fstat(self._file.fileno()).st_size
        self._close = weakref.finalize(self, self._file.close)

    def read_into(self, out: memoryview, position: int) -> None:
        """As :meth:`RandomAccess.read_into`; errors of a shared file system that pass are waited for."""
        while out:
            got = self._read_some(out, position)
            if got == 0:
                raise _ends_early(self._path, position)
            out, position = out[got:], position + got

    def _read_some(self, out: memoryview, position: int) -> int:
        what = f"{self._path}: reading at byte {position}"
        try:
            return with_retries(what, lambda: self._pread(out, position), passes_locally)
        except OSError as error:
            raise DataError(f"{what} failed: {error.strerror}") from error

    def _pread(self, out: memoryview, position: int) -> int:
        try:
            return os.preadv(self._file.fileno(), [out], position)
        except OSError as error:
            if error.errno == errno.ESTALE:
                self._open_again()
            raise

    def _open_again(self) -> None:
        """Under the same descriptor, which other threads may be reading from: a stale one stays stale."""
        with open(self._path, "rb", buffering=0) as fresh:
            found = os.fstat(fresh.fileno()).st_size
            if found != self._bytes:
                raise DataError(
                    f"{self._path}: has {found} bytes, and had {self._bytes} when it was opened\n"
                    "  something replaced it during the run; restore it and resume"
                )
            os.dup2(fresh.fileno(), self._file.fileno(), inheritable=False)

    def close(self) -> None:
        """As :meth:`RandomAccess.close`."""
        self._close()


class RemoteFile:
    """An object, each read of which is one request for exactly these bytes. Holds no descriptor.

    Args:
        path: of the object.
    """

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._filesystem = path.filesystem()

    def read_into(self, out: memoryview, position: int) -> None:
        """As :meth:`RandomAccess.read_into`."""
        if not out:
            return
        end = position + len(out)
        what = f"{self._path}: reading bytes {position} to {end}"
        try:
            read = with_retries(
                what, lambda: cast(bytes, self._filesystem.cat_file(self._path.url, start=position, end=end))
            )
        except OSError as error:
            raise DataError(f"{what} failed: {error}") from error
        if len(read) < len(out):
            raise _ends_early(self._path, position + len(read))
        if len(read) > len(out):
            raise ServerLimit(self._path, "does not give parts of it")
        out[:] = read

    def close(self) -> None:
        """As :meth:`RandomAccess.close`."""


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


def open_random_access(path: Location) -> RandomAccess:
    """Open a file, or prepare to read an object."""
    return RemoteFile(path) if isinstance(path, RemotePath) else LocalFile(path)


def _ends_early(path: Location, position: int) -> DataError:
    return DataError(
        f"{path}: ends at byte {position}, although it was longer when it was opened\n"
        "  something cut it short during the run; restore it and resume"
    )
