"""Every input format gives the same documents, and what is wrong is told by file and line."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from user_without_rights import as_a_user_without_rights

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, Malformed, find_inputs
from salamandra_data.readers.byte_stream import ZstdStream
from salamandra_data.readers.document import check_language_name, parse_json_line

RECORDS = [
    {"text": "un", "language": "ca", "source": "web", "licence": "CC0-1.0"},
    {"text": "two\nlines\r\n", "language": "en", "source": "web", "license": "MIT"},
    {"text": "τρία 😀 \u0000", "language": "el", "other": 3},
]


def json_lines(records: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def write(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        half = len(content) // 2  # two frames, as parallel compressors write
        content = b"".join(zstandard.compress(part) for part in (content[:half], content[half:]))
    path.write_bytes(content)
    return path


def documents(path: Path, keys: DocumentKeys | None = None) -> list[Document | Malformed]:
    return list(DocumentFile(path, keys or DocumentKeys()))


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.jsonl.zst"])
def test_json_lines_in_every_compression(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, json_lines(RECORDS))  # type: ignore[arg-type]
    found = documents(path)
    assert [document.text.decode() for document in found if isinstance(document, Document)] == [
        record["text"] for record in RECORDS
    ]
    assert found[0] == Document(1, b"un", "ca", "web", "CC0-1.0")
    assert found[1] == Document(2, b"two\nlines\r\n", "en", "web", "MIT")
    assert [document.line for document in found] == [1, 2, 3]


def test_parquet_gives_the_same_documents_as_json_lines(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", json_lines(RECORDS))  # type: ignore[arg-type]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS * 200), tmp_path / "a.parquet")
    columns = pyarrow.Table.from_pylist([{"license": None, **record} for record in RECORDS])
    pyarrow.parquet.write_table(columns, tmp_path / "b.parquet")
    assert documents(tmp_path / "b.parquet") == documents(lines)
    file = DocumentFile(tmp_path / "a.parquet", DocumentKeys())
    assert [document.line for document in file] == list(range(1, 601))
    assert file.consumed_bytes == file.size_bytes


@pytest.mark.parametrize("name", ["b.txt", "b.txt.gz", "b.txt.zst"])
def test_a_text_file_is_one_document(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "línia\n\ndues\n".encode())
    assert documents(path, DocumentKeys(language="ca")) == [Document(1, "línia\n\ndues\n".encode(), "ca")]


def test_a_fixed_language_wins_and_other_keys_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json_lines([{"body": "x", "lang": "fr", "language": "en"}]))
    assert documents(path, DocumentKeys("body", language="ca")) == [Document(1, b"x", "ca")]
    assert documents(path, DocumentKeys("body", language_key="lang")) == [Document(1, b"x", "fr")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "not JSON: .* at column"),
        (b"\xff\xfe{}", "not UTF-8: byte 0xff at position 0"),
        (b'{"text": "\xc3(", "language": "ca"}', "not UTF-8: byte 0xc3 at position 10"),
        (b'["text"]', "this is a list"),
        (b'"text"', "this is text"),
        (b'{"txt": "a", "language": "ca"}', "key 'text' is missing; found 'txt', 'language'"),
        (b'{"text": null, "language": "ca"}', "'text' is null"),
        (b'{"text": 3, "language": "ca"}', "'text' is a number"),
        (b'{"text": "a"}', "key 'language' is missing"),
        (b'{"text": "a", "language": "../ca"}', "'language' = '../ca' is not a name"),
        (b'{"text": "a", "language": ""}', "is not a name"),
        (b'{"text": "a", "language": ["ca"]}', "'language' is a list, expected text"),
        (b'{"text": "a\\ud800", "language": "ca"}', r"character 1 of 'text' is a lone surrogate \(U\+D800\)"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_malformed_lines_are_told_by_line_and_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(
        tmp_path / "a.jsonl", json_lines(RECORDS[:1]) + b"\n" + line + b"\n" + json_lines(RECORDS[:1])
    )  # type: ignore[arg-type]
    found = documents(path)
    assert [entry.line for entry in found] == [1, 3, 4]
    assert isinstance(found[1], Malformed)
    assert re.search(reason, found[1].reason), found[1].reason


@pytest.mark.parametrize(
    "record",
    [
        {"text": "a", "language": "x" * 3_000_000},
        {"x" * 3_000_000: "a"},
        {"text": "a", "language": "ca", "x" * 3_000_000: 1} | {"text": 7},
    ],
)
def test_what_is_wrong_is_told_in_a_few_words(tmp_path: Path, record: dict[str, object]) -> None:
    (entry,) = documents(write(tmp_path / "a.jsonl", json_lines([record])))
    assert isinstance(entry, Malformed) and len(entry.reason) < 500


def test_long_values_of_language_are_not_kept() -> None:
    kept = check_language_name.cache_info().currsize
    for number in range(9):
        parse_json_line(1, json.dumps({"text": "a", "language": f"{number}" * 65}).encode(), DocumentKeys())
    assert check_language_name.cache_info().currsize == kept


def test_columns_of_any_length_are_named_in_a_few_words(tmp_path: Path) -> None:
    table = pyarrow.table({f"{number}" * 10_000: ["a"] for number in range(100, 200)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'; its columns are '100100") as caught:
        documents(tmp_path / "a.parquet")
    assert len(str(caught.value)) < 1_500


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.parquet", "a.arrow"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch(mode=0)
    with (
        as_a_user_without_rights(tmp_path),
        pytest.raises(DataError, match=f"{name}: may not be read by this user: Permission denied"),
    ):
        documents(tmp_path / name)


def test_a_disk_that_fails_is_not_called_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("/proc/self/mem")  # whose first page cannot be read
    with pytest.raises(
        DataError, match="cannot be read to its end: .*\n.*the disk or its file system failed"
    ):
        documents(tmp_path / "a.jsonl")


def test_what_only_the_standard_library_reads_is_a_document() -> None:
    line = b'\xef\xbb\xbf{"text": "a", "language": "ca", "score": NaN, "title": "\\ud83d"}'
    assert parse_json_line(1, line, DocumentKeys()) == Document(1, b"a", "ca")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_not_changed_by_reading(text: str) -> None:
    for raw in (json.dumps({"text": text}), json.dumps({"text": text}, ensure_ascii=False)):
        document = parse_json_line(1, raw.encode(), DocumentKeys(language="xx"))
        assert isinstance(document, Document) and document.text.decode() == text


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "not compressed", "empty"])
def test_damaged_archives_are_an_error_and_not_a_short_file(tmp_path: Path, name: str, damage: str) -> None:
    content = write(
        tmp_path / name, json_lines([{"text": str(n) * 99, "language": "ca"} for n in range(999)])
    ).read_bytes()
    if damage == "truncated":
        content = content[:-7]
    elif damage == "flipped":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 255] * 9) + content[middle + 9 :]
    else:
        content = json_lines([{"text": "a", "language": "ca"}]) if damage == "not compressed" else b""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: cannot be read to its end"):
        documents(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_an_archive_of_nothing_has_no_documents(tmp_path: Path, name: str) -> None:
    assert documents(write(tmp_path / name, b"")) == []


def zstd_frames() -> bytes:
    """Two frames around one that is to be skipped: with and without checksum and length, the second of three blocks."""
    first = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(b"un\n")
    skipped = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"index"
    return first + skipped + zstandard.compress(b"a" * 300_000)


def test_frames_of_zstd_follow_each_other() -> None:
    stream = io.BufferedReader(ZstdStream(io.BytesIO(zstd_frames())))
    assert stream.read() == b"un\n" + b"a" * 300_000


def test_zstd_cut_anywhere_is_an_error_unless_between_frames() -> None:
    whole = zstd_frames()
    ends = [0, whole.index(b"\x5a\x2a\x4d\x18"), whole.index(b"index") + len(b"index"), len(whole)]
    for kept in range(len(whole) + 1):
        stream = io.BufferedReader(ZstdStream(io.BytesIO(whole[:kept])))
        if kept in ends:
            stream.read()
            continue
        with pytest.raises(EOFError):
            stream.read()


def test_zstd_with_the_largest_window_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = compressor.compress(json_lines(RECORDS)) + compressor.flush()  # type: ignore[arg-type]
    assert zstandard.get_frame_parameters(content).window_size == 2**31
    (tmp_path / "a.jsonl.zst").write_bytes(content)
    assert len(documents(tmp_path / "a.jsonl.zst")) == len(RECORDS)


def test_parquet_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"content": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'; its columns are 'content'"):
        documents(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"b\.parquet: cannot be read"):
        documents(tmp_path / "b.parquet")


def test_parquet_rows_that_are_not_text_are_malformed(tmp_path: Path) -> None:
    raw = pyarrow.array([b"good", b"\xff\xfe", None], type=pyarrow.binary())
    unchecked = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    table = pyarrow.table({"text": unchecked, "language": ["ca", "ca", "ca"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = documents(tmp_path / "a.parquet")
    assert found[0] == Document(1, b"good", "ca")
    assert isinstance(found[1], Malformed) and "not UTF-8" in found[1].reason and found[1].line == 2
    assert found[2] == Malformed(3, "'text' is null, expected text")


@pytest.mark.parametrize("name", ["A.JSONL", "a.Jsonl.GZ", "a.jsonl.ZST", "A.PARQUET", "a.Feather"])
def test_endings_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    if name.lower().endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / name)
    elif name.lower().endswith("feather"):
        pyarrow.feather.write_feather(pyarrow.Table.from_pylist(RECORDS), str(tmp_path / name))
    else:
        write(tmp_path / name.lower(), json_lines(RECORDS)).rename(tmp_path / name)  # type: ignore[arg-type]
    assert find_inputs([tmp_path]) == [tmp_path / name]
    assert [entry.line for entry in documents(tmp_path / name)] == [1, 2, 3]


LONG = "una línia llarga\n" * 200


@pytest.mark.parametrize(
    ("line", "doubled"),
    [
        ('{"text": "A", "text": "B", "language": "ca"}', "text"),
        ('{"text":"A","language":"ca","language":"es"}', "language"),
        ('{"text": "A", "language": "ca", "source": "x", "source": "y"}', "source"),
        ('{"text": "A", "language": "ca", "other": 1, "other": 2}', "other"),
        ('{"text": "A", "te\\u0078t": "B", "language": "ca"}', "text"),
        ('{"text" : "A", "text" : "B", "language" : "ca"}', "text"),
        ('{"text": "A", "text" : "B", "language": "ca"}', "text"),
        ('{"text": "A", "language"\t: "ca", "text"\r: "B"}', "text"),
        (f'{{"text": {json.dumps(LONG)}, "text" : "B", "language": "ca"}}', "text"),
        ('{"text": "A", "meta": {"id": 1, "id": 2}, "language": "ca"}', "id"),
        ('{"text": "A", "meta": [{"id": 1}, {"id": 2, "id": 3}], "language": "ca"}', "id"),
        ('{"text": "A", "score": NaN, "text": "B", "language": "ca"}', "text"),
        (f'{{"text": {json.dumps(LONG)}, "text": "short", "language": "ca"}}', "text"),
        (f'{{"text": "short", "text": {json.dumps(LONG)}, "language": "ca"}}', "text"),
        (f'{{"text": {json.dumps(LONG)}, "text": {json.dumps(LONG + "end")}, "language": "ca"}}', "text"),
        (f'{{"text": {json.dumps(LONG)}, "language": "ca", "text": {json.dumps(LONG)}}}', "text"),
        (f'{{"language": "ca", "language": "es", "text": {json.dumps(LONG)}}}', "language"),
        (f'{{"text": {json.dumps(LONG)}, "language": "ca", "language": "es"}}', "language"),
        (f'{{"text": {json.dumps(chr(34) * 50 + LONG)}, "text": "B", "language": "ca"}}', "text"),
        (f'{{"type": "text", "text": {json.dumps(LONG)}, "text": "B", "language": "ca"}}', "text"),
        (f'{{"text": {json.dumps(LONG + chr(92))}, "text": "B", "language": "ca"}}', "text"),
    ],
)
def test_a_key_twice_in_a_record_is_malformed(line: str, doubled: str) -> None:
    found = parse_json_line(7, line.encode(), DocumentKeys())
    assert isinstance(found, Malformed) and found.line == 7
    assert found.reason == f"key {doubled!r} is there 2 times; keep one of them"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.sampled_from(["id", "meta", 'a":', "url"]), JSON_VALUES),
    st.booleans(),
    st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]),
    st.integers(0, 80),
)
def test_records_without_a_doubled_key_are_documents(
    text: str, others: dict[str, object], ascii_only: bool, separators: tuple[str, str], times: int
) -> None:
    record = {"id": 0, "text": text * times, "language": "ca"} | others
    raw = json.dumps(record, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")
    document = parse_json_line(1, raw, DocumentKeys())
    assert isinstance(document, Document) and document.text.decode() == text * times
    again = raw[:-1] + separators[0].encode() + b'"text"' + separators[1].encode() + b'"other"}'
    assert isinstance(parse_json_line(1, again, DocumentKeys()), Malformed)
