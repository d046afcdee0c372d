"""Reading any bytes of a file or object, from several threads at once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol, cast

from salamandra_data.errors import DataError
from salamandra_data.storage.location import Location, RemotePath
from salamandra_data.storage.retries import with_retries

BLOCK_BYTES = 128 << 10
"""A window of 8,193 four-byte ids touches one block or two; a request of this size is latency more than transfer."""

CACHED_BLOCKS = 16
"""Per object: consecutive windows of validation share blocks; those of training hardly ever do."""


class RandomAccess(Protocol):
    """An open file or object."""

    def read_into(self, out: memoryview, position: int) -> None:
        """Fill ``out`` with the bytes from ``position`` on.

        Raises:
            DataError: it ends early or cannot be read; names it.
        """


class LocalFile:
    """A file read with ``preadv``: one descriptor, closed when the last reader lets go.

    Not through a memory map: a file system that fails or a file that was cut short then gives an error with the
    path, where a map would kill the process by SIGBUS. A cold window is one request instead of a row of page faults.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this object

    def read_into(self, out: memoryview, position: int) -> None:
        """As :meth:`RandomAccess.read_into`."""
        while out:
            try:
                got = os.preadv(self._file.fileno(), [out], position)
            except OSError as error:
                raise DataError(
                    f"{self._path}: reading at byte {position} failed: {error.strerror}"
                ) from error
            if got == 0:
                raise _ends_early(self._path, position)
            out, position = out[got:], position + got


class RemoteFile:
    """An object read by ranges of whole blocks, the last few of which are kept.

    Args:
        path: of the object.
        size: its bytes, as known from its index.
    """

    def __init__(
        self,
        path: RemotePath,
        size: int,
        *,
        block_bytes: int = BLOCK_BYTES,
        cached_blocks: int = CACHED_BLOCKS,
    ) -> None:
        self._path, self._size = path, size
        self._block_bytes, self._cached_blocks = block_bytes, cached_blocks
        self._filesystem = path.filesystem()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read_into(self, out: memoryview, position: int) -> None:
        """As :meth:`RandomAccess.read_into`; what is not cached is one request."""
        if not out:
            return
        first, last = position // self._block_bytes, (position + len(out) - 1) // self._block_bytes
        blocks = self._blocks_of(first, last)
        offset = position - first * self._block_bytes
        filled = 0
        for block in blocks:
            part = memoryview(block)[offset : offset + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled, offset = filled + len(part), 0
        if filled < len(out):
            raise _ends_early(self._path, position + filled)

    def _blocks_of(self, first: int, last: int) -> list[bytes]:
        with self._lock:  # of the cache only: requests of several threads overlap
            known = {
                number: self._blocks[number] for number in range(first, last + 1) if number in self._blocks
            }
            for number in known:
                self._blocks.move_to_end(number)
        missing = [number for number in range(first, last + 1) if number not in known]
        if missing:
            start = missing[0] * self._block_bytes
            fetched = self._fetch(start, min((missing[-1] + 1) * self._block_bytes, self._size))
            for number in range(missing[0], missing[-1] + 1):
                place = number * self._block_bytes - start
                known[number] = fetched[place : place + self._block_bytes]
            with self._lock:
                self._blocks |= {number: known[number] for number in missing}
                while len(self._blocks) > self._cached_blocks:
                    self._blocks.popitem(last=False)
        return [known[number] for number in range(first, last + 1)]

    def _fetch(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        what = f"{self._path}: reading bytes {start} to {end}"
        try:
            return cast(
                bytes,
                with_retries(what, lambda: self._filesystem.cat_file(self._path.url, start=start, end=end)),
            )
        except OSError as error:
            raise DataError(f"{what} failed: {error}") from error


def open_random_access(path: Location, size: int) -> RandomAccess:
    """Open a file, or prepare to read an object of ``size`` bytes."""
    return RemoteFile(path, size) if isinstance(path, RemotePath) else LocalFile(path)


def _ends_early(path: Location, position: int) -> DataError:
    return DataError(
        f"{path}: ends at byte {position}, although it was longer when it was opened\n"
        "  something cut it short during the run; restore it and resume"
    )
