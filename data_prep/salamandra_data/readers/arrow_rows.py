"""Documents out of the rows of Parquet and Arrow files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from salamandra_data.errors import DataError
from salamandra_data.readers.document import BATCH_BYTES, Document, DocumentKeys, Malformed
from salamandra_data.readers.formats import PARQUET, format_of
from salamandra_data.readers.record_batches import arrow_parts, parquet_parts
from salamandra_data.readers.table_source import TableSource
from salamandra_data.storage import Location


def rows_of(
    path: Location, keys: DocumentKeys, progress: Callable[[float], None]
) -> Iterator[list[Document | Malformed]]:
    """The documents of a Parquet file or an Arrow IPC file or stream, about a megabyte at a time.

    Args:
        path: of the file.
        keys: the columns.
        progress: told now and then which share of the file was read.
    Raises:
        DataError: not such a file, damaged or cut short, or without the column of the text.
    """
    import pyarrow

    kind, parts = ("Parquet", parquet_parts) if format_of(path.name) == PARQUET else ("Arrow", arrow_parts)
    wanted = (keys.text, keys.language_key, "source", "licence", "license")
    row = size = 0
    entries: list[Document | Malformed] = []
    try:
        with TableSource(path) as source:
            for part, part_bytes, share in parts(path, source, wanted):
                entries += _entries(part, keys, row)
                row, size = row + part.num_rows, size + part_bytes
                del part  # it may keep a large batch alive while the next is read
                if size >= BATCH_BYTES:
                    yield entries
                    entries, size = [], 0
                    progress(share)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be read as {kind} (after row {row:,}): {error}") from error
    if entries:
        yield entries
    progress(1.0)


def _entries(batch: Any, keys: DocumentKeys, rows_before: int) -> Iterator[Document | Malformed]:
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
                yield keys.document(rows_before + offset + 1, row)
        return
    for offset, row in enumerate(rows):
        yield keys.document(rows_before + offset + 1, row)
