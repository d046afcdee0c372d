"""Files that were made to hurt a reader end in one sentence, soon, and in bounded memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, Malformed, input_file, tables

KEYS = DocumentKeys(language="ca")


READ = """
import json, resource, sys
from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentFile, DocumentKeys, Malformed, input_file
from pathlib import Path

warm_up, path, mebibytes, seconds, most_line = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
input_file.MOST_LINE_BYTES = most_line or input_file.MOST_LINE_BYTES
list(DocumentFile(warm_up, DocumentKeys(language="ca")))  # what is imported late is not part of the bound
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (mebibytes << 20),) * 2)
used = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds,) * 2)


def read(file):
    entries = []
    try:
        for entry in DocumentFile(file, DocumentKeys(language="ca")):
            bad = isinstance(entry, Malformed)
            text = entry.reason if bad else entry.text.decode()[:99]
            entries.append([entry.line, "malformed" if bad else "text", text])
    except DataError as error:
        return str(error)
    return entries


print(json.dumps([read(file) for file in sorted(path.iterdir())] if path.is_dir() else read(path)))
"""
"""The system itself refuses more memory and ends what computes longer."""


def read_bounded(
    path: Path, *, mebibytes: int, seconds: int, most_line: int = 0, warm_up: Path | None = None
) -> Any:
    """Line, kind and text or reason of each entry, or the error: in a process with so much time and added memory.

    Args:
        path: of a file; or of a directory, for a list of what its files give, in order of name.
        warm_up: an intact file of the kind, if it is none of lines.
    """
    if warm_up is None:
        warm_up = path.with_name(f"warm-up{''.join(path.suffixes)}")
        compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
        warm_up.write_bytes(compress(b'{"text": "bon dia"}\n'))
    bounds = map(str, (mebibytes, seconds, most_line))
    command = [sys.executable, "-c", READ, str(warm_up), str(path), *bounds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


def entries(path: Path) -> list[Any]:
    return list(DocumentFile(path, KEYS))


def write_bomb(path: Path, first: bytes, size: int) -> None:
    """A first line, and ``size`` letters, compressed to almost nothing; never held whole."""
    kinds: dict[str, Any] = {".gz": partial(gzip.open, compresslevel=1), ".zst": zstandard.open}
    with kinds.get(path.suffix, open)(path, "wb") as stream:
        stream.write(first)
        for _ in range(size >> 20):
            stream.write(b"a" * (1 << 20))


@pytest.mark.parametrize("kind", ["", ".gz", ".zst"])
@pytest.mark.parametrize(("ending", "what"), [(".jsonl", "line 2"), (".txt", "the text")])
def test_a_line_larger_than_any_document_is_refused_before_it_is_in_memory(
    tmp_path: Path, kind: str, ending: str, what: str
) -> None:
    path = tmp_path / f"bomb{ending}{kind}"
    write_bomb(path, b'{"text": "bon dia"}\n', 256 << 20)
    found = read_bounded(path, mebibytes=120, seconds=60, most_line=8 << 20)
    assert isinstance(found, str) and re.search(rf"bomb.*{what} has more than 8 MiB", found)


def test_the_bounds_of_these_tests_are_bounds(tmp_path: Path) -> None:
    path = tmp_path / "bomb.txt"
    write_bomb(path, b"", 256 << 20)
    with pytest.raises(AssertionError, match="MemoryError"):
        read_bounded(path, mebibytes=120, seconds=60)


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
    first, (line, found, text), last = read_bounded(path, mebibytes=200, seconds=30)
    assert first == [1, "text", "first"] and last == [3, "text", "last"]
    if found == "malformed":
        assert reason is not None and line == 2 and len(text) < 500, text
        assert any(part in text for part in reason.split("|")), text
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
    (tmp_path / "damaged").mkdir()
    for number in range(150):
        content = bytearray(whole)
        for place in chance.integers(0, len(whole), int(chance.integers(1, 4))).tolist():
            # At the end of Parquet and Arrow files lie their schemas and sizes.
            content[-1 - place % 700 if chance.random() < 0.5 else place] = int(chance.integers(256))
        (tmp_path / "damaged" / f"{number:03d}{ending}").write_bytes(content)
    found = read_bounded(tmp_path / "damaged", mebibytes=3000, seconds=120, warm_up=path)
    assert len(found) == 150
    for number, result in enumerate(found):
        assert isinstance(result, list) or f"{number:03d}{ending}" in result
    assert any(isinstance(result, str) for result in found)


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


def test_json_of_each_shape_is_a_document_or_named(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    reasons = {
        "1": "a JSON object is expected, this is a number",
        "null": "a JSON object is expected, this is null",
        "[]": "a JSON object is expected, this is a list",
        "{}": "key 'text' is missing",
        '{"text": null}': "'text' is null, expected text",
    }
    path.write_text("".join(f"{line}\n" for line in (*reasons, '{"text": ""}')))
    *malformed, document = entries(path)
    for number, (entry, reason) in enumerate(zip(malformed, reasons.values(), strict=True), start=1):
        assert isinstance(entry, Malformed) and entry.line == number and reason in entry.reason
    assert isinstance(document, Document) and (document.line, document.text) == (6, b"")
