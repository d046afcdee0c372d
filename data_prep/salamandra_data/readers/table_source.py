"""The open file or object from which pyarrow reads Parquet and Arrow."""

from __future__ import annotations

import io

from salamandra_data.errors import DataError
from salamandra_data.storage import Location, open_random_access, size_of

_BUFFER_BYTES = 128 << 10
MOST_BYTES_AT_ONCE = 1 << 30
"""Of a record batch of Arrow or a page of Parquet, which pyarrow holds whole."""
_REQUEST_BYTES = 16 << 20
"""At most asked for at once; a request needs its size in memory, beside what is read."""


class TableSource(io.BufferedReader):
    """Seekable stream over a file or object; reading an object is tried again when the network fails.

    Not a memory map: a file that is cut short meanwhile would kill the process.

    Args:
        path: of the file.
    Raises:
        DataError: a server does not tell the size of the object.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        stream = _RandomAccessStream(path)
        self._size = stream.size
        super().__init__(stream, _BUFFER_BYTES)

    def read(self, size: int | None = -1, /) -> bytes:
        """As :meth:`io.BufferedReader.read`.

        Raises:
            DataError: more than :data:`MOST_BYTES_AT_ONCE` are asked for, and there.
        """
        left = max(self._size - self.tell(), 0)
        count = left if size is None or size < 0 else min(size, left)  # a damaged file may ask for anything
        if count > MOST_BYTES_AT_ONCE:
            raise DataError(
                f"{self._path}: has a record batch or page of {count / 2**30:.1f} GiB, which must be held in memory "
                f"whole; {MOST_BYTES_AT_ONCE / 2**30:g} GiB is the most\n"
                "  write it again with fewer rows in each, such as max_chunksize=1000 (Arrow), chunksize=1000 "
                "(Feather) or write_batch_size=100 (Parquet) in pyarrow"
            )
        return super().read(count)


class _RandomAccessStream(io.RawIOBase):
    def __init__(self, path: Location) -> None:
        self._path = path
        try:
            self.size = size_of(path)
        except TypeError as error:
            raise DataError(
                f"{path}: the server does not tell its size, which reading tables needs\n"
                "  copy the file to a disk first, or offer it as JSON lines"
            ) from error
        self._file = open_random_access(path)
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As :meth:`io.IOBase.seek`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the file goes; 0 at its end."""
        count = max(min(len(buffer), self.size - self._position, _REQUEST_BYTES), 0)
        try:
            self._file.read_into(memoryview(buffer)[:count], self._position)
        except DataError:
            raise
        except ValueError as error:  # other bytes than asked for
            raise DataError(
                f"{self._path}: the server does not give parts of it, which reading tables needs\n"
                "  copy the file to a disk first, or offer it as JSON lines"
            ) from error
        self._position += count
        return count

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._file.close()
        super().close()
