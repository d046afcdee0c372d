"""Record batches of Parquet and Arrow files, cut to about a megabyte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.readers.document import BATCH_BYTES, some_names
from salamandra_data.storage import Location

_BUFFER_BYTES = 1 << 20
_MOST_ROWS = 16
_LEAST_ROW_BYTES = 64
"""What a row counts for at least, so that millions of empty rows are cut too."""
_FILE_MAGIC = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"

Part: TypeAlias = tuple[Any, int, float]
"""A ``pyarrow.RecordBatch``, about how many bytes it holds, and the share of the file that was read when it came."""


def parquet_parts(path: Location, source: Any, wanted: Sequence[str]) -> Iterator[Part]:
    """The rows of a Parquet file, some at a time: at most 16, and one where they are long.

    Args:
        path: for messages.
        source: the open file.
        wanted: columns, the first of which must be there.
    Raises:
        DataError: the first column is missing.
        pyarrow.ArrowException: the file cannot be read.
    """
    import pyarrow.parquet

    # With a buffer size and without `pre_buffer` a column is read page by page; else a row group's whole column is.
    with pyarrow.parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table:
        columns = _columns(path, table.schema_arrow.names, wanted)
        rows, all_rows = 0, max(table.metadata.num_rows, 1)
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            # A batch has a size in rows only. Few, because their lengths may differ within a group.
            fitting = BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)
            for batch in table.iter_batches(
                batch_size=min(max(fitting, 1), _MOST_ROWS),
                row_groups=[number],
                columns=columns,
                use_threads=False,
            ):
                rows += batch.num_rows
                size = batch.get_total_buffer_size()
                if size <= BATCH_BYTES:
                    yield batch, size, rows / all_rows
                    continue
                for part, part_bytes in _parts(batch):
                    yield part, part_bytes, rows / all_rows


def arrow_parts(path: Location, source: Any, wanted: Sequence[str]) -> Iterator[Part]:
    """The rows of an Arrow IPC file or stream, about a megabyte at a time; one record batch is held at once.

    Args:
        path: for messages.
        source: the open file, at its start.
        wanted: columns, the first of which must be there.
    Raises:
        DataError: the first column is missing, or the file is neither.
        pyarrow.ArrowException: the file cannot be read.
    """
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
            columns = _columns(path, table.schema.names, wanted)
            for number in range(table.num_record_batches):
                for part, part_bytes in _parts(table.get_batch(number).select(columns)):
                    yield part, part_bytes, (number + 1) / table.num_record_batches
                    del part  # it keeps the batch alive while the next is read
        return
    with pyarrow.ipc.open_stream(source) as stream:
        columns = _columns(path, stream.schema.names, wanted)
        while True:
            try:
                parts = _parts(stream.read_next_batch().select(columns))
            except StopIteration:
                return
            for part, part_bytes in parts:
                yield part, part_bytes, source.tell() / size
                del part


def _columns(path: Location, names: list[str], wanted: Sequence[str]) -> list[str]:
    if wanted[0] not in names:
        raise DataError(f"{path}: no column {wanted[0]!r}; its columns are {some_names(names)}")
    return [name for name in names if name in wanted]


def _parts(batch: Any) -> Iterator[tuple[Any, int]]:
    """Views of consecutive rows of ``batch`` with their bytes: a megabyte at most, or one row."""
    ends = np.cumsum(np.maximum(sum(_lengths(column) for column in batch.columns), _LEAST_ROW_BYTES))
    start = before = 0
    while start < batch.num_rows:
        stop = max(int(np.searchsorted(ends, before + BATCH_BYTES, side="right")), start + 1)
        end = int(ends[stop - 1])
        yield batch.slice(start, stop - start), end - before
        start, before = stop, end


def _lengths(column: Any) -> Any:
    """Bytes of each value, int64; their average where the type does not tell."""
    import pyarrow
    from pyarrow.compute import binary_length, fill_null

    try:
        if pyarrow.types.is_dictionary(column.type):
            lengths = binary_length(column.dictionary).take(column.indices)
        else:
            lengths = binary_length(column)
    except pyarrow.ArrowNotImplementedError:
        return np.full(len(column), column.nbytes // max(len(column), 1), dtype=np.int64)
    return fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
