"""Decompressing zstd as a stream that notices when the file ends too early."""

from __future__ import annotations

import io
from typing import BinaryIO

import zstandard

_READ_BYTES = 1 << 16


class ZstdStream(io.RawIOBase):
    """Raw, readable stream over one or more zstd frames.

    The library's own stream reader returns the part of a truncated file as if it were all; this one raises
    ``EOFError`` instead.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._inside_frame = False
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the front; 0 at the end.

        Raises:
            EOFError: the file ends inside a frame.
        """
        while not self._pending:
            compressed = self._raw.read(_READ_BYTES)
            if not compressed:
                if self._inside_frame:
                    raise EOFError("the zstd data ends inside a frame")
                return 0
            self._pending = memoryview(self._decompress(compressed))
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _decompress(self, compressed: bytes) -> bytes:
        parts: list[bytes] = []
        while compressed:
            self._inside_frame = True
            parts.append(self._decoder.decompress(compressed))
            if not self._decoder.eof:
                break
            compressed = self._decoder.unused_data
            self._decoder = zstandard.ZstdDecompressor().decompressobj()
            self._inside_frame = False
        return b"".join(parts)
