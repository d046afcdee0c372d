"""Reading any bytes of a file or object, from several threads at once."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Protocol, cast

from salamandra_data.errors import DataError
from salamandra_data.storage.location import Location, RemotePath
from salamandra_data.storage.retries import with_retries


class RandomAccess(Protocol):
    """An open file or object."""

    def read_into(self, out: memoryview, position: int) -> None:
        """Fill ``out`` with the bytes from ``position`` on.

        Raises:
            DataError: it ends early or cannot be read; names it.
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
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - outlives this method
        self._close = weakref.finalize(self, self._file.close)

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
        out[:] = read

    def close(self) -> None:
        """As :meth:`RandomAccess.close`."""


def open_random_access(path: Location) -> RandomAccess:
    """Open a file, or prepare to read an object."""
    return RemoteFile(path) if isinstance(path, RemotePath) else LocalFile(path)


def _ends_early(path: Location, position: int) -> DataError:
    return DataError(
        f"{path}: ends at byte {position}, although it was longer when it was opened\n"
        "  something cut it short during the run; restore it and resume"
    )
