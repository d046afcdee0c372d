"""Files that were made to hurt a reader end in one sentence, soon, and in bounded memory."""

from __future__ import annotations

import gzip
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentFile, DocumentKeys, Malformed, input_file, tables

KEYS = DocumentKeys(language="ca")


@contextmanager
def bounded(seconds: float, mebibytes: int) -> Iterator[None]:
    """Processor time and additional memory of the block."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - began < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < mebibytes << 10


def entries(path: Path) -> list[Any]:
    return list(DocumentFile(path, KEYS))


def of_zeros(kind: str, size: int) -> bytes:
    """A file of ``size`` letters, compressed to almost nothing."""
    if kind == ".zst":
        compressor = zstandard.ZstdCompressor().compressobj(size=size)
        return b"".join(
            [*(compressor.compress(b"a" * (1 << 20)) for _ in range(size >> 20)), compressor.flush()]
        )
    if kind == ".gz":
        return gzip.compress(b"a" * size, 1)
    return b"a" * size


@pytest.mark.parametrize("kind", ["", ".gz", ".zst"])
@pytest.mark.parametrize(("ending", "what"), [(".jsonl", "line 2"), (".txt", "the text")])
def test_a_line_larger_than_any_document_is_refused_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ending: str, what: str
) -> None:
    monkeypatch.setattr(input_file, "MOST_LINE_BYTES", 8 << 20)
    path = tmp_path / f"bomb{ending}{kind}"
    first = b'{"text": "bon dia"}\n'
    if kind == ".gz":
        first = gzip.compress(first)
    elif kind == ".zst":
        first = zstandard.compress(first)
    path.write_bytes(first + of_zeros(kind, 256 << 20))
    with bounded(60, 120), pytest.raises(DataError, match=rf"bomb.*{what} has more than 8 MiB"):
        entries(path)


def test_the_bound_is_one_that_no_document_meets() -> None:
    assert input_file.MOST_LINE_BYTES == 1 << 30


LINES: dict[str, tuple[bytes, str | None]] = {
    "deep list": (b'{"text": "x", "a": ' + b"[" * 900 + b"]" * 900 + b', "b": {"c:": 1}}', None),
    "deeper list": (b'{"text": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
    "deep objects": (b'{"a":' * 1000 + b'{"text": "x"}' + b"}" * 1000, "not JSON|no 'text'|is missing"),
    "open objects": (b'{"text":' * 100_000, "not JSON"),
    "huge number": (b'{"text": "x", "n": ' + b"9" * 100_000 + b"}", "not JSON|^$"),
    "huge exponent": (b'{"text": "x", "n": 1e999999999}', None),
    "NUL": (b'{"text": "a\\u0000b"}', None),
    "raw NUL": (b'{"text": "a\x00b"}', "not JSON"),
    "lone surrogate": (b'{"text": "a\\ud800b"}', "lone surrogate"),
    "lone surrogate in a key": (b'{"text": "a", "\\ud800": 1}', None),
    "not UTF-8": (b'{"text": "a\xff"}', "UTF-8"),
    "text is a list": (b'{"text": ["a"]}', "a list"),
    "many keys": (b'{"text": "x", ' + b",".join(b'"k%d": 0' % n for n in range(100_000)) + b"}", None),
    "one key often": (
        b'{"text": "x", ' + b",".join([b'"k": 0'] * 100_000) + b"}",
        "100000 times|100,000 times",
    ),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_hostile_line_is_a_document_or_a_named_line(tmp_path: Path, kind: str) -> None:
    raw, reason = LINES[kind]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "first"}\n' + raw + b'\n{"text": "last"}\n')
    with bounded(30, 400):
        first, entry, last = entries(path)
    assert first.text == b"first" and last.text == b"last"
    if isinstance(entry, Malformed):
        assert reason is not None and entry.line == 2 and len(entry.reason) < 500, entry.reason
        assert any(part in entry.reason for part in reason.split("|")), entry.reason
    else:
        assert reason is None or reason.endswith("^$")


def parquet(path: Path, **columns: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


WRONG_COLUMNS: dict[str, Callable[[], Any]] = {
    "numbers": lambda: [1, 2],
    "bytes": lambda: [b"a"],
    "lists": lambda: [["a"], ["b"]],
    "objects": lambda: [{"a": 1}],
    "truth": lambda: [True],
}


@pytest.mark.parametrize("kind", WRONG_COLUMNS)
def test_a_column_of_another_type_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.parquet"
    parquet(path, text=WRONG_COLUMNS[kind]())
    try:
        found = entries(path)
    except DataError as error:
        assert "'text'" in str(error) and "t.parquet" in str(error)
    else:
        assert found and all(isinstance(entry, Malformed) for entry in found)


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".stream.arrow"])
def test_tables_with_flipped_bytes_end_in_a_sentence_or_a_document(tmp_path: Path, ending: str) -> None:
    """Lengths and offsets of such a file may claim anything."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": [f"document {number} " * 20 for number in range(200)]})
    path = tmp_path / f"t{ending}"
    if ending == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        new = pyarrow.ipc.new_stream if "stream" in ending else pyarrow.ipc.new_file
        with new(path, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
    whole, chance = path.read_bytes(), np.random.default_rng(3)
    with bounded(120, 3000):
        for _ in range(150):
            content = bytearray(whole)
            for place in chance.integers(0, len(whole), int(chance.integers(1, 4))).tolist():
                # At the end of Parquet and Arrow files lie their schemas and sizes.
                content[-1 - place % 700 if chance.random() < 0.5 else place] = int(chance.integers(256))
            path.write_bytes(content)
            try:
                for entry in DocumentFile(path, KEYS):
                    assert isinstance(entry, Malformed) or isinstance(entry.text, bytes)
            except DataError as error:
                assert path.name in str(error)


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_memory_that_was_refused_is_told_with_both_causes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    path, table = tmp_path / f"t{ending}", pyarrow.table({"text": ["a", "b"]})
    if ending == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    for error in (MemoryError(), pyarrow.ArrowMemoryError("malloc of size 64 failed")):

        def refuse(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(tables, "_entries", refuse)
        with pytest.raises(
            DataError, match=rf"t\{ending}.*memory was refused(?s:.*)fewer --workers.*damaged"
        ):
            entries(path)


def test_json_of_many_shapes_is_read_the_same_way_twice(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        "".join(json.dumps(value) + "\n" for value in (1, None, [], {}, {"text": None}, {"text": ""}))
    )
    assert [type(entry).__name__ for entry in entries(path)] == [
        type(entry).__name__ for entry in entries(path)
    ]
