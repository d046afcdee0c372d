"""The documents of one input file, in constant memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import isal.isal_zlib
import zstandard

from salamandra_data.errors import DataError
from salamandra_data.readers.byte_stream import CountedStream, decompressed
from salamandra_data.readers.document import (
    BATCH_BYTES,
    Document,
    DocumentKeys,
    Malformed,
    is_joined_by_commas,
    json_document_filter,
    parse_json_line,
)
from salamandra_data.readers.formats import ARROW, PARQUET, PLAIN_TEXT, format_of
from salamandra_data.readers.tables import rows_of
from salamandra_data.storage import Location, RemotePath, ServerLimit, size_of

MOST_LINE_BYTES = 1 << 30
"""Of one line, or of a file that is one document. A few kilobytes of zstd can hold a line of terabytes."""


@dataclass
class DocumentFile:
    """One input file, or object behind a URL."""

    path: Location
    keys: DocumentKeys

    def __post_init__(self) -> None:
        self._raw: CountedStream | None = None
        self._share_of_rows = 0.0
        self._last_line = 0

    @property
    def size_bytes(self) -> int:
        """Size of the file as it is stored; 0 where a server does not tell."""
        try:
            return size_of(self.path)
        except ServerLimit:
            return 0

    @property
    def consumed_bytes(self) -> int:
        """How much of the file was read so far; follows while iterating."""
        return self._raw.count if self._raw is not None else int(self._share_of_rows * self.size_bytes)

    def __iter__(self) -> Iterator[Document | Malformed]:
        """The documents in their order, one at a time; otherwise as :meth:`batches`."""
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[Document | Malformed]]:
        """The documents in their order, about a megabyte at a time; blank lines are passed over.

        Raises:
            DataError: the file as a whole cannot be read (missing, truncated or damaged archive, no text column).
        """
        try:
            yield from self._batches()
        except FileNotFoundError as error:
            raise DataError(f"{self.path}: no such file") from error
        except PermissionError as error:
            raise DataError(
                f"{self.path}: may not be read by this user: {error.strerror or error}\n"
                f"  {'give credentials for it' if isinstance(self.path, RemotePath) else 'make it readable'}, or leave "
                "it out"
            ) from error
        except (EOFError, OSError, zlib.error, isal.isal_zlib.error, zstandard.ZstdError) as error:
            raise DataError(
                f"{self.path}: cannot be read to its end: {error}\n"
                f"  the last whole line was {self._last_line:,}; {self._remedy(error)}"
            ) from error

    def _remedy(self, error: Exception) -> str:
        if isinstance(self.path, RemotePath):
            return "the network failed, or the object is damaged: run again, or look at the object"
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # the system's word, not that of a decompressor
            return "the disk or its file system failed: mend that, and run again"
        return "the file is truncated or damaged: copy it again from its origin"

    def _batches(self) -> Iterator[list[Document | Malformed]]:
        kind = format_of(self.path.name)
        if kind == PARQUET or kind in ARROW:
            for batch in rows_of(self.path, self.keys, self._rows_read):
                yield batch
                self._last_line = batch[-1].line
            return
        with CountedStream(self.path) as self._raw, decompressed(self.path, self._raw) as stream:
            if kind == PLAIN_TEXT:
                content = stream.read(MOST_LINE_BYTES + 1)
                if len(content) > MOST_LINE_BYTES:
                    raise self._too_long("the text")
                yield [self._plain_text(content)]
                return
            yield from self._json_lines(stream)

    def _lines(self, stream: BinaryIO) -> Iterator[bytes]:
        """The lines of a file of lines; one that would not fit in memory is refused before it is read whole."""
        number = 0
        for number, content in enumerate(iter(partial(stream.readline, MOST_LINE_BYTES + 1), b""), start=1):
            if len(content) > MOST_LINE_BYTES:
                self._last_line = number - 1
                raise self._too_long(f"line {number:,}")
            yield content

    def _too_long(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: {what} has more than {MOST_LINE_BYTES >> 20:,} MiB, which is no document\n"
            "  look at what is there, and cut it into documents of one line each"
        )

    def _json_lines(self, stream: BinaryIO) -> Iterator[list[Document | Malformed]]:
        keys = self.keys
        batch: list[Document | Malformed] = []
        size = line = 0
        lines = self._lines(stream)
        try:
            for line, content in enumerate(chain(self._first_lines(lines), lines), start=1):
                if not content.isspace():
                    batch.append(parse_json_line(line, content, keys))
                size += len(content)
                if size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        finally:
            self._last_line = line
        yield batch

    def _first_lines(self, stream: Iterator[bytes]) -> list[bytes]:
        """The lines up to the second one with content, looked at for what is JSON but not JSON lines."""
        lines: list[bytes] = []
        filled: list[bytes] = []
        for content in stream:
            if not lines:
                content = content.removeprefix(b"\xef\xbb\xbf") or b"\n"  # a file may hold nothing else
            lines.append(content)
            filled += [] if content.isspace() else [content]
            if len(filled) == 2:
                break
        if filled and is_joined_by_commas(filled[0], *filled[1:]):
            name = self.path.name
            raise DataError(
                f"{self.path}: its JSON objects are joined by commas, not one on each line\n"
                "  make it JSON lines, for example: "
                f"sed 's/,*[[:space:]]*$//; s/.*/[&]/' {name} | jq -c '.[]' > new.jsonl"
            )
        if filled and (jq_filter := json_document_filter(filled[0], *filled[1:])):
            raise DataError(
                f"{self.path}: is one JSON document over several lines or records, not one JSON object per line\n"
                f"  make it JSON lines, for example: jq -c '{jq_filter}' {self.path.name} > new.jsonl"
            )
        return lines

    def _rows_read(self, share: float) -> None:
        self._share_of_rows = share

    def _plain_text(self, content: bytes) -> Document | Malformed:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return Malformed(1, f"not UTF-8: byte 0x{content[error.start]:02x} at position {error.start}")
        return self.keys.document(1, {self.keys.text: text})


def fingerprint(files: Sequence[Location]) -> str:
    """Of input files as they are now: places, sizes and, on disk, when they changed last; nothing is read."""
    known = []
    for path in files:
        size = DocumentFile(path, DocumentKeys()).size_bytes
        known.append((str(path), size, path.stat().st_mtime_ns if isinstance(path, Path) else 0))
    return hashlib.sha256(repr(known).encode()).hexdigest()
