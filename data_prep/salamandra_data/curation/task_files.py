"""The texts of benchmark tasks, whatever file they come in."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import isal.isal_zlib
import orjson
import zstandard

from salamandra_data.errors import DataError
from salamandra_data.readers import CountedStream, decompressed

_COMPRESSIONS = (".gz", ".zst")
_JSON_LINES = (".jsonl", ".ndjson")
_TABLES = (".parquet", ".arrow", ".feather")
_KNOWN = ".jsonl, .ndjson, .json and .txt, each also .gz or .zst, .parquet, .arrow and .feather"
_BLANK_LINES = re.compile(r"\n\s*\n")


def task_items(path: Path) -> Iterator[str]:
    """The items of a task file, each as all of its strings.

    An item is a line of JSON, an element of a JSON array or of the one array in a JSON object, a row of Parquet or
    Arrow, or a paragraph of text between blank lines.

    Raises:
        DataError: the name tells no known format, or the file cannot be read as what it tells.
    """
    suffixes = path.suffixes
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in _COMPRESSIONS else path.suffix
    if kind not in (*_JSON_LINES, ".json", ".txt") and path.suffix not in _TABLES:
        raise DataError(f"--decontaminate {path}: its name does not tell a known format; known are {_KNOWN}")
    try:
        if path.suffix in _TABLES:
            yield from (_text_of(row) for row in _rows(path))
        elif kind in _JSON_LINES:
            yield from _json_lines(path, _content(path))
        elif kind == ".json":
            yield from _json(path, _content(path))
        else:
            yield from _BLANK_LINES.split(_content(path).decode("utf-8-sig"))
    except (OSError, EOFError, ValueError, zlib.error, isal.isal_zlib.error, zstandard.ZstdError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"--decontaminate {path}: cannot be read: {error}") from error


def _content(path: Path) -> bytes:
    with CountedStream(path) as raw, decompressed(path, raw) as stream:
        return stream.read()


def _json_lines(path: Path, content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                yield _text_of(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise DataError(f"--decontaminate {path}:{number}: not JSON: {error}") from error


def _json(path: Path, content: bytes) -> Iterator[str]:
    """One value, or a value on each line."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        yield from _json_lines(path, content)
        return
    if isinstance(value, dict):
        arrays = [inner for inner in value.values() if isinstance(inner, list)]
        value = arrays[0] if len(arrays) == 1 else [value]
    yield from (_text_of(item) for item in value)


def _rows(path: Path) -> Iterator[Any]:
    """Needs pyarrow, which the package always installs; its errors are ``ValueError`` or ``OSError``."""
    import pyarrow
    import pyarrow.parquet

    if path.suffix == ".parquet":
        yield from pyarrow.parquet.read_table(path).to_pylist()
        return
    with pyarrow.OSFile(str(path), "rb") as source:
        try:
            table = pyarrow.ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid:
            source.seek(0)
            table = pyarrow.ipc.open_stream(source).read_all()
        yield from table.to_pylist()


def _text_of(item: Any) -> str:
    return " ".join(_strings(item))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
