"""Decompressing zstd as a stream that notices when the file ends too early."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = frozenset(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
_HEADER_START_BYTES = 5
_CHECKSUM_BYTES = 4
_BLOCK_OF_ONE_BYTE = 1
_LARGEST_WINDOW = 1 << 31  # what `zstd --long=31` writes; the library's own limit is 128 MiB
_SKIPPED_AT_ONCE = 1 << 20
_ENDS_EARLY = "the zstd data ends inside a frame"


class ZstdStream(io.RawIOBase):
    """Raw, readable stream over one or more zstd frames.

    Unlike the library's readers it raises ``EOFError`` where a file is truncated, and it holds little of a file that
    becomes many times as large: it decompresses block by block (RFC 8878, 3.1.1.2), and a block becomes 128 KiB at
    most. The decoder keeps the frame's window besides, whose size the compressor chose.

    Args:
        raw: the compressed file.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._blocks = self._decompressed()
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the front; 0 at the end.

        Raises:
            EOFError: the file ends inside a frame.
            zstandard.ZstdError: it is damaged, or no zstd.
        """
        while not self._pending:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._pending = memoryview(block)
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _decompressed(self) -> Iterator[bytes]:
        while start := self._raw.read(len(_MAGIC)):
            if len(start) < len(_MAGIC):
                raise EOFError(_ENDS_EARLY)
            if start in _SKIPPABLE_MAGIC:
                self._skip(int.from_bytes(self._exactly(4), "little"))
            elif start == _MAGIC:
                yield from self._frame()
            else:
                raise zstandard.ZstdError("no zstd frame starts here")

    def _frame(self) -> Iterator[bytes]:
        decoder = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
        header = _MAGIC + self._exactly(_HEADER_START_BYTES - len(_MAGIC))
        header += self._exactly(zstandard.frame_header_size(header) - len(header))
        yield decoder.decompress(header)
        last = False
        while not last:
            block_header = self._exactly(3)
            fields = int.from_bytes(block_header, "little")
            last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
            content = self._exactly(1 if kind == _BLOCK_OF_ONE_BYTE else size)
            yield decoder.decompress(block_header + content)
        if zstandard.get_frame_parameters(header).has_checksum:
            yield decoder.decompress(self._exactly(_CHECKSUM_BYTES))

    def _exactly(self, count: int) -> bytes:
        content = self._raw.read(count)
        if len(content) < count:
            raise EOFError(_ENDS_EARLY)
        return content

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._exactly(min(count, _SKIPPED_AT_ONCE)))
