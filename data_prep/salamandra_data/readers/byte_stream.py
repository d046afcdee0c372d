"""The bytes of an input file, counted and decompressed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import zstandard
from isal import igzip

from salamandra_data.errors import DataError
from salamandra_data.readers.formats import compression_of
from salamandra_data.storage import Location, RemotePath, RemoteStream

BUFFER_BYTES = 1 << 20

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = frozenset(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
_HEADER_START_BYTES = 5
_CHECKSUM_BYTES = 4
_BLOCK_OF_ONE_BYTE = 1
_LARGEST_WINDOW = 1 << 31  # what `zstd --long=31` writes; the library's own limit is 128 MiB
_SKIPPED_AT_ONCE = 1 << 20
_ENDS_EARLY = "the zstd data ends inside a frame"

_CONTENTS = {
    b"\x1f\x8b\x08": ("gzip", ".gz"),
    _MAGIC: ("zstd", ".zst"),
    b"BZh91AY&SY": ("bzip2", None),
    b"\xfd7zXZ\0": ("xz", None),
    b"PK\x03\x04": ("zip", None),
    b"PAR1\x15": ("Parquet", ".parquet"),
    b"ARROW1\0\0": ("Arrow", ".arrow"),
}
"""How files of other formats begin, what they are called, and the ending under which they are read here."""
_MOST_MAGIC_BYTES = max(map(len, _CONTENTS))


class CountedStream(io.RawIOBase):
    """Raw, readable stream over a file or object that knows how much was read.

    Reading an object is tried again when the network fails.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        self._stream: io.RawIOBase = (
            RemoteStream(path) if isinstance(path, RemotePath) else open(path, "rb", buffering=0)  # noqa: SIM115
        )
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the front; 0 at the end."""
        count = self._stream.readinto(buffer) or 0
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
        DataError: the file begins as one of another format, which its name does not tell.
    """
    stream = io.BufferedReader(raw, BUFFER_BYTES)
    compression = compression_of(path.name)
    start = stream.peek(_MOST_MAGIC_BYTES)
    _check_content(path, compression, start)
    if compression is None:
        return stream
    if not start:
        raise EOFError("it is empty, which even an archive of nothing is not")
    if compression == ".gz":
        return io.BufferedReader(igzip.IGzipFile(fileobj=stream, mode="rb"), BUFFER_BYTES)
    return io.BufferedReader(ZstdStream(stream), BUFFER_BYTES)


def _check_content(path: Location, compression: str | None, start: bytes) -> None:
    for magic, (name, ending) in _CONTENTS.items():
        if start.startswith(magic) and (ending is None or ending != compression):
            remedy = (
                f"give it a name that ends in {ending}"
                if ending
                else "decompress it, or compress it with gzip or zstd"
            )
            raise DataError(f"{path}: its content is {name}, which its name does not tell\n  {remedy}")


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
