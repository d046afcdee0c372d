"""Arrow files and inputs behind URLs give the documents of the same JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from tokenize_job import tokenize_job

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, Malformed, find_inputs
from salamandra_data.storage import RemotePath, retries
from salamandra_data.tokenization import tokenize_documents

RECORDS = [{"text": f"document {n}\r\nlínia — {n}", "language": "ca", "source": "web"} for n in range(700)]
DOCUMENTS = [
    Document(line, str(record["text"]).encode(), "ca", "web") for line, record in enumerate(RECORDS, start=1)
]


def documents(path: Path | RemotePath) -> list[Document | Malformed]:
    return list(DocumentFile(path, DocumentKeys()))


def write_arrow(path: Path, *, stream: bool) -> Path:
    table = pyarrow.Table.from_pylist(RECORDS)
    kind = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with kind(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    return path


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_files_and_streams_give_their_rows(tmp_path: Path, stream: bool) -> None:
    file = DocumentFile(write_arrow(tmp_path / "a.arrow", stream=stream), DocumentKeys())
    assert list(file) == DOCUMENTS
    assert 0.99 * file.size_bytes <= file.consumed_bytes <= file.size_bytes  # a stream ends with a mark


@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "lz4"])
def test_feather_files_are_arrow_files(tmp_path: Path, compression: str) -> None:
    table = pyarrow.Table.from_pylist(RECORDS)
    pyarrow.feather.write_feather(table, str(tmp_path / "a.feather"), compression=compression)
    assert documents(tmp_path / "a.feather") == DOCUMENTS


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_arrow_cut_short_is_an_error_and_not_a_short_file(tmp_path: Path, stream: bool, kept: float) -> None:
    whole = write_arrow(tmp_path / "whole.arrow", stream=stream).read_bytes()
    (tmp_path / "cut.arrow").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=r"cut\.arrow: (cannot be read as Arrow|is no Arrow file)"):
        documents(tmp_path / "cut.arrow")


TEXT_TYPES = {
    "large": pyarrow.large_string(),
    "view": pyarrow.string_view(),
    "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
}


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_text_columns_may_be_of_any_type_of_string(tmp_path: Path, kind: str) -> None:
    rows = [*(str(record["text"]) for record in RECORDS), None, "x" * 2**21]
    table = pyarrow.table({"text": pyarrow.array(rows).cast(TEXT_TYPES[kind])})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        found = list(DocumentFile(tmp_path / name, DocumentKeys(language="ca")))
        assert [entry.text.decode() for entry in found if isinstance(entry, Document)] == [
            *rows[:-2],
            rows[-1],
        ]
        assert found[-2] == Malformed(len(rows) - 1, "'text' is null, expected text")


def test_a_text_column_of_lists_is_malformed_row_by_row(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [["a"], ["b"]]})
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    found = list(DocumentFile(tmp_path / "a.arrow", DocumentKeys(language="ca")))
    assert found == [Malformed(row, "'text' is a list, expected text") for row in (1, 2)]


def test_arrow_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(pyarrow.table({"content": ["a"]}), str(tmp_path / "a.feather"))
    with pytest.raises(DataError, match="no column 'text'; its columns are 'content'"):
        documents(tmp_path / "a.feather")


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """A directory of the memory file system with the same documents four times."""
    filesystem = fsspec.filesystem("memory")
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
    filesystem.pipe_file("/inputs/a.jsonl", lines)
    with filesystem.open("/inputs/deep/b.jsonl.gz", "wb", compression="gzip") as stream:
        stream.write(lines)
    filesystem.pipe_file("/inputs/deep/c.arrow", write_arrow(tmp_path / "c.arrow", stream=False).read_bytes())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / "d.parquet")
    filesystem.pipe_file("/inputs/deep/d.parquet", (tmp_path / "d.parquet").read_bytes())
    filesystem.pipe_file("/inputs/.hidden.jsonl", lines)
    yield "memory://inputs"
    filesystem.rm("/inputs", recursive=True)


def test_directories_and_patterns_behind_urls_are_searched(bucket: str) -> None:
    names = [path.name for path in find_inputs([bucket])]
    assert names == ["a.jsonl", "b.jsonl.gz", "c.arrow", "d.parquet"]
    assert [path.name for path in find_inputs([f"{bucket}/deep/*.gz"])] == ["b.jsonl.gz"]
    with pytest.raises(DataError, match="listed twice"):
        find_inputs([bucket, f"{bucket}/a.jsonl"])
    with pytest.raises(DataError, match="no such file or directory"):
        find_inputs([f"{bucket}/missing.jsonl"])


def test_objects_give_the_same_documents_in_every_format(bucket: str) -> None:
    for path in find_inputs([bucket]):
        assert documents(path) == DOCUMENTS, path  # type: ignore[arg-type]


def test_reading_is_tried_again_when_the_network_fails(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.001)
    failures = []

    def failing_first(action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            if len(failures) % 2 == 0:
                failures.append(action)
                raise TimeoutError("the network is away")
            failures.append(None)
            return action(*arguments, **options)

        return act

    files = find_inputs([bucket])
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing_first(MemoryFileSystem.cat_file))
    monkeypatch.setattr(MemoryFile, "read", failing_first(MemoryFile.read))
    for path in files:
        failures.clear()
        assert documents(path) == DOCUMENTS, path  # type: ignore[arg-type]
        assert failures, path


def test_a_table_whose_size_a_server_does_not_tell_is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "size", lambda system, path: None)
    with pytest.raises(DataError, match=r"d\.parquet: the server does not tell its size"):
        documents(RemotePath(f"{bucket}/deep/d.parquet"))


def test_a_table_of_a_server_that_gives_no_parts_is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MemoryFileSystem.cat_file
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda system, path, **part: whole(system, path))
    with pytest.raises(DataError, match=r"c\.arrow: the server does not give parts"):
        documents(RemotePath(f"{bucket}/deep/c.arrow"))


def test_a_protocol_without_its_package_is_named() -> None:
    with pytest.raises(DataError, match="nosuch"):
        find_inputs(["nosuch://bucket/a.jsonl"])


def test_shards_do_not_depend_on_where_the_input_lies(
    tmp_path: Path, bucket: str, small_tokenizer: Path
) -> None:
    local = tmp_path / "a.jsonl"
    local.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    for inputs, out in ((local, "local"), (f"{bucket}/a.jsonl", "remote")):
        tokenize_documents(tokenize_job([inputs], small_tokenizer, tmp_path / out))
    for ending in (".bin", ".idx"):
        name = f"ca-train-00000{ending}"
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "remote" / name).read_bytes()
