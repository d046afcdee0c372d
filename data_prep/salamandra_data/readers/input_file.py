"""Input files: which ones a list of paths means, and the documents in each, in constant memory."""

from __future__ import annotations

import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from salamandra_data.errors import DataError
from salamandra_data.readers.document import Document, DocumentKeys, Malformed, parse_json_line
from salamandra_data.readers.zstd_stream import ZstdStream

_COMPRESSIONS = (".gz", ".zst")
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_BUFFER_BYTES = 1 << 20
_PARQUET_ROWS = 256
ENDINGS = "*.jsonl, *.ndjson, *.json, *.txt (each also .gz or .zst) and *.parquet"


def find_inputs(paths: Sequence[Path | str]) -> list[Path]:
    """The files that ``paths`` mean: files, directories (searched whole, sorted) and glob patterns (sorted).

    Raises:
        DataError: a path does not exist, a pattern or directory yields nothing, a file's format is not
            known by its name, or a file is reached twice.
    """
    found: list[Path] = []
    for entry in paths:
        path = Path(entry)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _belongs(file, path))
            if not inside:
                raise DataError(f"{path}: no input file in this directory; looked for {ENDINGS}")
            found += inside
        elif path.is_file():
            found.append(path)
        elif matches := sorted(Path(match) for match in glob.glob(str(entry), recursive=True)):
            found += [match for match in matches if match.is_file()]
        else:
            raise DataError(f"{entry}: no such file or directory, and no pattern that matches one")
    seen: dict[Path, Path] = {}
    for path in found:
        if not _known(path):
            raise DataError(f"{path}: its name does not tell a known format; known are {ENDINGS}")
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise DataError(f"{path}: is listed twice (also as {other}); its documents would be doubled")
    return found


def _known(path: Path) -> bool:
    return _inner_suffix(path) in (*_JSON_LINES, ".txt") or path.suffix == ".parquet"


def _belongs(path: Path, directory: Path) -> bool:
    """Whether a file found in a directory is input: not hidden, and not a lone .json, which is seldom documents."""
    hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
    return path.is_file() and _known(path) and path.suffix != ".json" and not hidden


def _inner_suffix(path: Path) -> str:
    """The ending that tells the format, below one of compression."""
    return Path(path.stem).suffix if path.suffix in _COMPRESSIONS else path.suffix


@dataclass
class DocumentFile:
    """One input file. ``consumed_bytes`` follows, while iterating, how much of it was read."""

    path: Path
    keys: DocumentKeys
    consumed_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Size of the file as it is on disk."""
        return self.path.stat().st_size

    def __iter__(self) -> Iterator[Document | Malformed]:
        """The documents in their order; blank lines are passed over.

        Raises:
            DataError: the file as a whole cannot be read (missing, truncated or damaged archive, no text column).
        """
        last_line = 0
        try:
            for entry in self._entries():
                last_line = entry.line
                yield entry
        except FileNotFoundError as error:
            raise DataError(f"{self.path}: no such file") from error
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise DataError(
                f"{self.path}: cannot be read to its end: {error}\n  the last whole line was {last_line:,}; "
                "the file is truncated or damaged: copy it again from its origin"
            ) from error

    def _entries(self) -> Iterator[Document | Malformed]:
        if self.path.suffix == ".parquet":
            yield from self._parquet_entries()
            return
        with open(self.path, "rb", buffering=_BUFFER_BYTES) as raw, _decompressed(self.path, raw) as stream:
            if _inner_suffix(self.path) == ".txt":
                yield self._plain_text(stream.read())
                self.consumed_bytes = raw.tell()
                return
            for line, content in enumerate(stream, start=1):
                self.consumed_bytes = raw.tell()
                if not content.isspace():
                    yield parse_json_line(line, content, self.keys)

    def _plain_text(self, content: bytes) -> Document | Malformed:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return Malformed(1, f"not UTF-8: byte 0x{content[error.start]:02x} at position {error.start}")
        return self.keys.document(1, {self.keys.text: text})

    def _parquet_entries(self) -> Iterator[Document | Malformed]:
        import pyarrow
        import pyarrow.parquet

        size, row = self.size_bytes, 0
        try:
            with pyarrow.parquet.ParquetFile(self.path) as table:
                names = table.schema_arrow.names
                if self.keys.text not in names:
                    raise DataError(
                        f"{self.path}: no column {self.keys.text!r}; its columns are {', '.join(names)}"
                    )
                wanted = (self.keys.text, self.keys.language_key, "source", "licence", "license")
                columns = [name for name in names if name in wanted]
                for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=columns, use_threads=False):
                    for entry in self._batch_entries(batch, row):
                        row += 1
                        yield entry
                    self.consumed_bytes = size * row // max(table.metadata.num_rows, 1)
        except pyarrow.ArrowException as error:
            raise DataError(f"{self.path}: cannot be read as Parquet (after row {row:,}): {error}") from error

    def _batch_entries(self, batch: Any, rows_before: int) -> Iterator[Document | Malformed]:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check strings; find the rows that are not UTF-8
            for offset in range(batch.num_rows):
                try:
                    row = batch.slice(offset, 1).to_pylist()[0]
                except UnicodeDecodeError as error:
                    yield Malformed(
                        rows_before + offset + 1, f"not UTF-8: {error.reason} at position {error.start}"
                    )
                else:
                    yield self.keys.document(rows_before + offset + 1, row)
            return
        for offset, row in enumerate(rows):
            yield self.keys.document(rows_before + offset + 1, row)


def _decompressed(path: Path, raw: BinaryIO) -> BinaryIO:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES)
    if path.suffix == ".zst":
        return io.BufferedReader(ZstdStream(raw), _BUFFER_BYTES)
    return raw
