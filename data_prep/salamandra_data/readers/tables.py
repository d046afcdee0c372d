"""Documents out of the rows of Parquet and Arrow files, about a megabyte at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.readers.document import BATCH_BYTES, Document, DocumentKeys, Malformed, some_names
from salamandra_data.readers.formats import PARQUET, format_of
from salamandra_data.storage import Location, open_random_access, size_of

_COLUMN_BUFFER_BYTES = 1 << 20
_MOST_ROWS = 16
_LEAST_ROW_BYTES = 64
"""What a row counts for at least, so that millions of empty rows are cut too."""
_FILE_MAGIC = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_BUFFER_BYTES = 128 << 10
MOST_BYTES_AT_ONCE = 1 << 30
"""Of a record batch of Arrow or a page of Parquet, which pyarrow holds whole."""
_REQUEST_BYTES = 16 << 20
"""At most asked for at once; a request needs its size in memory, beside what is read."""

Part: TypeAlias = tuple[Any, int, float]
"""A ``pyarrow.RecordBatch``, about how many bytes it holds, and the share of the file that was read when it came."""


_OF_DAMAGE = (UnicodeDecodeError, OverflowError, SystemError)
"""What pyarrow raises besides, over names of columns, counts and sizes that cannot be."""


def rows_of(
    path: Location, keys: DocumentKeys, progress: Callable[[float], None]
) -> Iterator[list[Document | Malformed]]:
    """The documents of a Parquet file or an Arrow IPC file or stream, about a megabyte at a time.

    Args:
        path: of the file.
        keys: the columns.
        progress: called now and then with the share of the file that was read.
    Raises:
        DataError: not such a file, damaged or cut short, or without the column of the text, or too large for the
            memory that is left.
    """
    import pyarrow

    kind, parts = ("Parquet", _parquet_parts) if format_of(path.name) == PARQUET else ("Arrow", _arrow_parts)
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
    except MemoryError as error:
        raise DataError(
            f"{path}: cannot be read as {kind} (after row {row:,}): memory was refused: {error}\n"
            "  either this process has too little of it, so give it more or use fewer --workers; or the file is "
            "damaged and asks for what it does not hold, so copy it again from its origin"
        ) from error
    except (pyarrow.ArrowException, *_OF_DAMAGE) as error:
        raise DataError(
            f"{path}: cannot be read as {kind} (after row {row:,}): {error}\n"
            "  if it is damaged, copy it again from its origin; if nothing was ever written to it, leave it out"
        ) from error
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


def _parquet_parts(path: Location, source: Any, wanted: Sequence[str]) -> Iterator[Part]:
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
    with pyarrow.parquet.ParquetFile(source, buffer_size=_COLUMN_BUFFER_BYTES, pre_buffer=False) as table:
        columns = _columns(path, table.schema_arrow, wanted)
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
                for part, part_bytes in _cut(batch):
                    yield part, part_bytes, rows / all_rows


def _arrow_parts(path: Location, source: Any, wanted: Sequence[str]) -> Iterator[Part]:
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
            columns = _columns(path, table.schema, wanted)
            for number in range(table.num_record_batches):
                for part, part_bytes in _cut(_checked(table.get_batch(number).select(columns))):
                    yield part, part_bytes, (number + 1) / table.num_record_batches
                    del part  # it keeps the batch alive while the next is read
        return
    with pyarrow.ipc.open_stream(source) as stream:
        columns = _columns(path, stream.schema, wanted)
        while True:
            try:
                parts = _cut(_checked(stream.read_next_batch().select(columns)))
            except StopIteration:
                return
            for part, part_bytes in parts:
                yield part, part_bytes, source.tell() / size
                del part


def _columns(path: Location, schema: Any, wanted: Sequence[str]) -> list[str]:
    """The columns to read, in the order of the file."""
    names = list(schema.names)
    if wanted[0] not in names:
        raise DataError(
            f"{path}: no column {wanted[0]!r}; its columns are {some_names(names)}\n"
            "  name the column of the text with --text-key"
        )
    there = [name for name in names if name in wanted]
    for name in there:
        if there.count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there {there.count(name)} times\n  keep one of them")
    kind = str(schema.field(wanted[0]).type)
    if "binary" in kind:
        raise DataError(
            f"{path}: column {wanted[0]!r} holds bytes ({kind}), expected text (string)\n"
            f"  write it as text, such as by table[{wanted[0]!r}].cast('string') in pyarrow"
        )
    return there


def _checked(batch: Any) -> Any:
    """A record batch whose offsets lie inside it: Arrow takes those of a file as they are.

    Raises:
        pyarrow.ArrowInvalid: they do not.
    """
    import pyarrow

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            if "UTF8" not in str(error):  # whose rows are told one by one
                raise
    return batch


def _cut(batch: Any) -> Iterator[tuple[Any, int]]:
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


class TableSource(io.BufferedReader):
    """Seekable stream over a file or object; reading an object is tried again when the network fails.

    Not a memory map: a file that is cut short meanwhile would kill the process.

    Args:
        path: of the file.
    Raises:
        DataError: a server does not tell the size of the object.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        stream = _RandomAccessStream(path)
        self._size = stream.size
        super().__init__(stream, _BUFFER_BYTES)

    def read(self, size: int | None = -1, /) -> bytes:
        """As :meth:`io.BufferedReader.read`.

        Raises:
            DataError: more than :data:`MOST_BYTES_AT_ONCE` are asked for, and there.
        """
        left = max(self._size - self.tell(), 0)
        count = left if size is None or size < 0 else min(size, left)  # a damaged file may ask for anything
        if count > MOST_BYTES_AT_ONCE:
            raise DataError(
                f"{self._path}: has a record batch or page of {count / 2**30:.1f} GiB, which must be held in memory "
                f"whole; {MOST_BYTES_AT_ONCE / 2**30:g} GiB is the most\n"
                "  write it again with fewer rows in each, such as max_chunksize=1000 (Arrow), chunksize=1000 "
                "(Feather) or write_batch_size=100 (Parquet) in pyarrow"
            )
        return super().read(count)


class _RandomAccessStream(io.RawIOBase):
    def __init__(self, path: Location) -> None:
        self.size = size_of(path)
        self._file = open_random_access(path)
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As :meth:`io.IOBase.seek`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the file goes; 0 at its end."""
        count = max(min(len(buffer), self.size - self._position, _REQUEST_BYTES), 0)
        self._file.read_into(memoryview(buffer)[:count], self._position)
        self._position += count
        return count

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._file.close()
        super().close()
