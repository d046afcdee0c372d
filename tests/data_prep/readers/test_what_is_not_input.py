"""Files that are nearly input are told apart from it, in a sentence that says what helps; nothing of them is lost."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard
from user_without_rights import as_a_user_without_rights

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, Malformed, find_inputs

RECORDS = [{"text": "un", "language": "ca"}, {"text": "dos", "language": "ca"}]


def documents(path: Path) -> list[Document | Malformed]:
    return list(DocumentFile(path, DocumentKeys()))


@pytest.mark.parametrize(
    ("content", "jq_filter"),
    [
        (json.dumps(RECORDS), ".[]"),
        (json.dumps(RECORDS[:1]), ".[]"),
        (json.dumps(RECORDS, indent=2), ".[]"),
        ("\n\n" + json.dumps(RECORDS, indent=2), ".[]"),
        ("\ufeff" + json.dumps(RECORDS, indent=2), ".[]"),
        ("[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n", ".[]"),
        ("[" + ",\n".join(map(json.dumps, RECORDS)) + "]\n", ".[]"),
        (json.dumps(RECORDS[0], indent=2), "."),
        ("\n".join(json.dumps(record, indent=2) for record in RECORDS), "."),
        ('{"text": "un",\n"language": "ca"}', "."),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz"])
def test_one_json_document_is_not_read_as_lines(
    tmp_path: Path, name: str, content: str, jq_filter: str
) -> None:
    raw = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    with pytest.raises(DataError) as caught:
        documents(tmp_path / name)
    assert f"{name}: is one JSON document" in str(caught.value)
    assert f"\n  make it JSON lines, for example: jq -c '{jq_filter}' {name}" in str(caught.value)


ONE, TWO = map(json.dumps, RECORDS)


@pytest.mark.parametrize(
    "content",
    [
        f"{ONE},{TWO}",
        f"{ONE} , {TWO},\n",
        f"{ONE},{TWO}\n{ONE},{TWO}\n",
        f"{ONE},\n{TWO},\n{ONE}\n",
        f"{ONE},\n\n{TWO},\n",
        f'{{"text": "}},{{", "language": "ca"}},{TWO},\n{ONE},',
    ],
)
def test_objects_joined_by_commas_are_refused_with_what_makes_them_lines(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match="a.jsonl: its JSON objects are joined by commas") as caught:
        documents(tmp_path / "a.jsonl")
    # What jq is given are lists of the objects.
    sed, _, jq = str(caught.value).partition("for example: ")[2].partition(" | ")
    assert jq == "jq -c '.[]' > new.jsonl"
    listed = subprocess.run(["bash", "-c", sed], cwd=tmp_path, capture_output=True, check=True).stdout
    decoder = json.JSONDecoder()
    there, rest = [], content
    while rest := rest.lstrip(" ,\n"):
        record, end = decoder.raw_decode(rest)
        there.append(record)
        rest = rest[end:]
    assert [record for line in listed.splitlines() for record in json.loads(line)] == there


@pytest.mark.parametrize("second", [ONE, "not JSON"])
def test_a_comma_too_many_makes_one_malformed_line(tmp_path: Path, second: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{ONE},\n{second}\n{TWO}\n")
    found = documents(tmp_path / "a.jsonl")
    assert isinstance(found[0], Malformed) and [entry.line for entry in found] == [1, 2, 3]


@pytest.mark.parametrize(
    "first",
    [
        '["header", "of", "columns"]',
        '{"text": "cut',
        '{"text": "a"',
        '["cut',
        "{",
        "garbage",
        '[{"text": "a"}]',
    ],
)
def test_a_malformed_first_line_is_only_that(tmp_path: Path, first: str) -> None:
    lines = [first, *map(json.dumps, RECORDS), ""]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    if first in ("{",):  # as a record over several lines begins
        with pytest.raises(DataError, match="one JSON document"):
            documents(tmp_path / "a.jsonl")
        return
    found = documents(tmp_path / "a.jsonl")
    assert isinstance(found[0], Malformed) and found[0].line == 1
    assert [entry.line for entry in found] == [1, 2, 3]


def test_one_record_alone_is_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(RECORDS[0]))
    assert documents(tmp_path / "a.json") == [Document(1, b"un", "ca")]
    (tmp_path / "b.json").write_text('{"text": "a"')
    assert isinstance(documents(tmp_path / "b.json")[0], Malformed)


def test_a_directory_says_what_it_looks_for(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        find_inputs([tmp_path])
    assert "it holds 'one.json'; looked for *.jsonl, *.ndjson, *.txt" in str(caught.value)
    assert "*.json," not in str(caught.value) and "name .json files one by one" in str(caught.value)
    assert find_inputs([tmp_path / "one.json"]) == [tmp_path / "one.json"]


LINES = "".join(json.dumps(record) + "\n" for record in RECORDS * 40).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            gzip.compress(LINES, mtime=0),
            "its content is gzip.*\n  give it a name that ends in .gz",
        ),
        ("a.jsonl", zstandard.compress(LINES), "its content is zstd.*\n  give it a name that ends in .zst"),
        ("a.txt", gzip.compress(LINES, mtime=0), "its content is gzip"),
        ("a.jsonl.zst", gzip.compress(LINES, mtime=0), "its content is gzip"),
        ("a.jsonl.gz", zstandard.compress(LINES), "its content is zstd"),
        ("a.jsonl", bz2.compress(LINES), "its content is bzip2.*\n  decompress it"),
        ("a.jsonl", lzma.compress(LINES), "its content is xz.*\n  decompress it"),
    ],
)
def test_what_a_name_does_not_tell_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        documents(tmp_path / name)


def test_tables_under_the_name_of_lines_are_named(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(RECORDS)
    pyarrow.parquet.write_table(table, tmp_path / "a.jsonl")
    pyarrow.feather.write_feather(table, str(tmp_path / "b.jsonl"))
    for name, kind in (("a.jsonl", "Parquet"), ("b.jsonl", "Arrow")):
        with pytest.raises(DataError, match=f"{name}: its content is {kind}"):
            documents(tmp_path / name)


def test_text_that_begins_like_a_format_is_text(tmp_path: Path) -> None:
    for number, text in enumerate(("PAR1 is a gene", "BZh is short", "PK")):
        (tmp_path / f"{number}.txt").write_text(text)
        assert list(DocumentFile(tmp_path / f"{number}.txt", DocumentKeys(language="en"))) == [
            Document(1, text.encode(), "en")
        ]


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary(2)])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_column_of_bytes_is_named_as_such(tmp_path: Path, kind: pyarrow.DataType, name: str) -> None:
    table = pyarrow.table({"text": pyarrow.array([b"un", b"du"], kind), "language": ["ca", "ca"]})
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(table, tmp_path / name)
    else:
        pyarrow.feather.write_feather(table, str(tmp_path / name))
    with pytest.raises(DataError, match=r"column 'text' holds bytes .*, expected text \(string\)\n.*cast"):
        documents(tmp_path / name)


@pytest.mark.parametrize("doubled", ["text", "language", "source"])
def test_doubled_columns_are_refused_in_tables_of_every_kind(tmp_path: Path, doubled: str) -> None:
    columns = ["text", "language", "source", doubled]
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 4, columns)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pyarrow.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pyarrow.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        with pytest.raises(DataError, match=f"{name}: column '{doubled}' is there 2 times"):
            documents(tmp_path / name)


def test_a_missing_key_names_the_option(tmp_path: Path) -> None:
    records = [{"meta": {"text": "a"}, "language": "ca"}, {"content": "a"}, {"text": "a"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    nested, other, language = (entry.reason for entry in documents(tmp_path / "a.jsonl"))  # type: ignore[union-attr]
    assert "found 'meta', 'language' ('text' is inside 'meta', where it is not looked for)" in nested
    assert "found 'content'; --text-key names" in other
    assert "--language" in language


def test_pipes_and_devices_are_told_from_what_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    reading, writing = os.pipe()
    try:
        for place in (tmp_path / "a.jsonl", tmp_path / "*.jsonl", Path(f"/dev/fd/{reading}")):
            with pytest.raises(
                DataError, match="is a pipe and no file; .*\n  write what comes out of it to a"
            ):
                find_inputs([place])
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(DataError, match="/dev/null: is a device"):
        find_inputs([Path("/dev/null")])


def test_patterns_pass_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(DataError, match="gone.jsonl: is a link to nowhere.jsonl"):
        find_inputs([tmp_path / "*.jsonl"])
    (tmp_path / "gone.jsonl").unlink()
    for name in ("ca", "es"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text("")
    (tmp_path / "es").chmod(0)
    try:
        with as_a_user_without_rights(tmp_path):
            for pattern in ("*/a.jsonl", "*/*.jsonl", "**/*.jsonl", "es/*.jsonl"):
                with pytest.raises(DataError, match="es: may not be read"):
                    find_inputs([tmp_path / pattern])
    finally:
        (tmp_path / "es").chmod(0o700)
    assert len(find_inputs([tmp_path / "*" / "a.jsonl"])) == 2


def test_empty_files_are_empty(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.ndjson", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_inputs([tmp_path])
    assert [DocumentFile(path, DocumentKeys(language="ca")).size_bytes for path in found] == [0, 0, 0]
    texts = [list(DocumentFile(path, DocumentKeys(language="ca"))) for path in found]
    assert texts == [[], [], [Document(1, b"", "ca")]]
    (tmp_path / "d.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read as Parquet .*\n  .*leave it out"):
        documents(tmp_path / "d.parquet")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\r\n"])
def test_a_byte_order_mark_is_no_line(tmp_path: Path, content: bytes) -> None:
    mark, line = b"\xef\xbb\xbf", b'{"text": "a", "language": "ca"}\n'
    (tmp_path / "a.jsonl").write_bytes(mark + content)
    assert documents(tmp_path / "a.jsonl") == []
    (tmp_path / "b.jsonl").write_bytes(mark + content + line + mark + line)  # as `cat` joins files
    assert [document.text for document in documents(tmp_path / "b.jsonl")] == [b"a", b"a"]
