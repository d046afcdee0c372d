"""The bytes of an input file, counted and decompressed."""

from __future__ import annotations

import io
from typing import BinaryIO

from isal import igzip

from salamandra_data.readers.formats import compression_of
from salamandra_data.readers.zstd_stream import ZstdStream
from salamandra_data.storage import Location, RemotePath
from salamandra_data.storage.retries import with_retries

BUFFER_BYTES = 1 << 20


class CountedStream(io.RawIOBase):
    """Raw, readable stream over a file or object that knows how much was read.

    Reading an object is tried again when the network fails.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        self._stream: BinaryIO = (
            path.open("rb") if isinstance(path, RemotePath) else open(path, "rb", buffering=0)  # noqa: SIM115
        )
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the front; 0 at the end."""
        if isinstance(self._path, RemotePath):
            content = with_retries(str(self._path), lambda: self._stream.read(len(buffer)))
            buffer[: len(content)] = content
            count = len(content)
        else:
            count = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self.count += count
        return count

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._stream.close()
        super().close()


def decompressed(path: Location, raw: CountedStream) -> BinaryIO:
    """The contents of a file, which end in an exception when a compressed file ends too early.

    Args:
        path: whose ending tells the compression.
        raw: over the file as it is.
    Raises:
        EOFError: a compressed file has no bytes at all.
    """
    stream = io.BufferedReader(raw, BUFFER_BYTES)
    compression = compression_of(path.name)
    if compression is None:
        return stream
    if not stream.peek(1):
        raise EOFError("it is empty, which even an archive of nothing is not")
    if compression == ".gz":
        return io.BufferedReader(igzip.IGzipFile(fileobj=stream, mode="rb"), BUFFER_BYTES)
    return io.BufferedReader(ZstdStream(stream), BUFFER_BYTES)
