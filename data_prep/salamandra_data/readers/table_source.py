"""The open file or object from which pyarrow reads Parquet and Arrow."""

from __future__ import annotations

import io

from salamandra_data.errors import DataError
from salamandra_data.storage import Location, open_random_access, size_of

_BUFFER_BYTES = 128 << 10
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
        super().__init__(_RandomAccessStream(path), _BUFFER_BYTES)


class _RandomAccessStream(io.RawIOBase):
    def __init__(self, path: Location) -> None:
        self._path = path
        try:
            self._size = size_of(path)
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
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the file goes; 0 at its end."""
        count = max(min(len(buffer), self._size - self._position, _REQUEST_BYTES), 0)
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
