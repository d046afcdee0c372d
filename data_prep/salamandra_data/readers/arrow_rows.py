"""Rows of Parquet and Arrow files, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from salamandra_data.errors import DataError
from salamandra_data.readers.document import Document, DocumentKeys, Malformed
from salamandra_data.readers.formats import PARQUET
from salamandra_data.storage import Location, RemotePath

_ROWS = 256
_BUFFER_BYTES = 1 << 20
_FILE_MAGIC = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def rows_of(
    path: Location, keys: DocumentKeys, progress: Callable[[float], None]
) -> Iterator[list[Document | Malformed]]:
    """The documents of a Parquet file or an Arrow IPC file or stream, some rows at a time.

    Args:
        path: of the file.
        keys: the columns.
        progress: told now and then which share of the file was read.
    Raises:
        DataError: not such a file, damaged or cut short, or without the column of the text.
    """
    import pyarrow

    row = 0
    try:
        with ExitStack() as stack:
            source = stack.enter_context(_opened(path))
            batches = _parquet if path.suffix == PARQUET else _arrow
            for batch, share in batches(path, source, keys):
                for start in range(0, batch.num_rows, _ROWS):
                    entries = list(_entries(batch.slice(start, _ROWS), keys, row))
                    yield entries
                    row += len(entries)
                progress(share)
    except pyarrow.ArrowException as error:
        kind = "Parquet" if path.suffix == PARQUET else "Arrow"
        raise DataError(f"{path}: cannot be read as {kind} (after row {row:,}): {error}") from error


def _opened(path: Location) -> Any:
    import pyarrow

    # Not through a memory map: a file that is cut short meanwhile would kill the process.
    return path.open("rb") if isinstance(path, RemotePath) else pyarrow.OSFile(str(path), "rb")


def _parquet(path: Location, source: Any, keys: DocumentKeys) -> Iterator[tuple[Any, float]]:
    import pyarrow.parquet

    # With a buffer size and without `pre_buffer` a column is read page by page; else a row group's whole column is.
    with pyarrow.parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table:
        columns = _columns(path, table.schema_arrow.names, keys)
        rows, all_rows = 0, max(table.metadata.num_rows, 1)
        for batch in table.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
            rows += batch.num_rows
            yield batch, rows / all_rows


def _arrow(path: Location, source: Any, keys: DocumentKeys) -> Iterator[tuple[Any, float]]:
    import pyarrow

    is_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
    size = source.seek(0, 2)
    if not is_file:
        source.seek(max(size - len(_STREAM_END), 0))
        if source.read(len(_STREAM_END)) != _STREAM_END:
            raise DataError(
                f"{path}: is no Arrow file, and no Arrow stream with its end\n"
                "  if it is cut short, copy it again from its origin"
            )
    source.seek(0)
    if is_file:
        with pyarrow.ipc.open_file(source) as table:
            columns = _columns(path, table.schema.names, keys)
            for number in range(table.num_record_batches):
                yield table.get_batch(number).select(columns), (number + 1) / table.num_record_batches
        return
    with pyarrow.ipc.open_stream(source) as stream:
        columns = _columns(path, stream.schema.names, keys)
        for batch in stream:
            yield batch.select(columns), source.tell() / size


def _columns(path: Location, names: list[str], keys: DocumentKeys) -> list[str]:
    if keys.text not in names:
        raise DataError(f"{path}: no column {keys.text!r}; its columns are {', '.join(names)}")
    wanted = (keys.text, keys.language_key, "source", "licence", "license")
    return [name for name in names if name in wanted]


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
