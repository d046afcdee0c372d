"""Corpora of nothing, of very long names and of very long documents are curated, or refused in a sentence."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from curation_run import curated, kept, write_records

from megatron_salamandra.cli import main
from salamandra_data.curation.quality_score import document_score, paragraphs

NOTHING: dict[str, dict[str, bytes]] = {
    "files of zero bytes": {"a.jsonl": b"", "b.txt": b""},
    "languages that are not in the corpus": {"a.jsonl": b'{"text": "abc", "language": "ja"}\n' * 2},
    "another encoding": {"a.jsonl": '{"text": "caf\xe9", "language": "fr"}\n'.encode("latin-1")},
    "blank lines": {"a.jsonl": b"\n \n"},
    "documents without text": {"a.jsonl": b'{"text": " ", "language": "en"}\n'},
}


def curate(directory: Path, *options: str) -> int:
    command = ["data", "curate", "--input", str(directory / "in"), "--out", str(directory / "out")]
    return main([*command, "--on-error=skip", *options])


@pytest.mark.parametrize("kind", NOTHING)
def test_input_that_holds_no_document_ends_with_a_table_a_page_and_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for name, content in NOTHING[kind].items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    for _ in range(2):  # the same once more: it is complete
        assert curate(tmp_path) == 1
        printed = capsys.readouterr()
        assert printed.out.splitlines()[0].split()[:2] == ["language", "kept"]
        assert printed.out.splitlines()[-2].split()[:2] == ["all", "0"]
        assert "no document could be read from" in printed.err and "Traceback" not in printed.err
    assert "<h1>Curation</h1>" in (tmp_path / "out/curation.html").read_text()
    report = json.loads((tmp_path / "out/curation.json").read_text())
    assert report["written"] == {}


def test_tables_without_rows_are_nothing_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    table = pyarrow.table(
        {"text": pyarrow.array([], pyarrow.string()), "language": pyarrow.array([], pyarrow.string())}
    )
    pyarrow.parquet.write_table(table, tmp_path / "in/a.parquet")
    assert curate(tmp_path) == 1
    assert "no document could be read from 1 input file: there is none in them" in capsys.readouterr().err


def test_a_corpus_of_which_all_is_removed_was_read(tmp_path: Path) -> None:
    write_records(tmp_path / "in/a.jsonl", [{"text": "menu | log in", "language": "en"}])
    assert curate(tmp_path, "--no-check-language") == 0


def test_very_long_names_of_input_make_names_of_output_that_differ(tmp_path: Path) -> None:
    long = {
        f"{'n' * 244}{number}.jsonl": [{"text": f"text {number}", "language": "en"}] for number in range(2)
    }
    wide = {f"{'ñ' * 120}.jsonl": [{"text": "text 2", "language": "en"}]}
    curated(tmp_path, {**long, **wide, "short.jsonl": [{"text": "text 3", "language": "en"}]})
    names = [path.name for path in sorted((tmp_path / "out/documents").iterdir())]
    assert [document["text"] for document in kept(tmp_path)] == ["text 0", "text 1", "text 3", "text 2"]
    assert names[2] == "00002-short.jsonl.zst" and max(len(name.encode()) for name in names) <= 200
    assert len({name.rsplit("-", 1)[1] for name in names[:2]}) == 2


@pytest.mark.skipif(sys.platform == "darwin", reason="names are always UTF-8 there")
def test_names_in_another_encoding_and_with_markup_are_spelt_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in (b"caf\xe9.jsonl", b"a b\n<i>.jsonl", "日本.jsonl".encode()):
        record = {"text": f"text of {name!r}", "language": "en"}
        Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name)).write_text(json.dumps(record))
    report = curated(tmp_path, {}, exact=True)
    assert {document["id"] for document in kept(tmp_path)} == {
        "caf\\xe9.jsonl:1",
        "a b\n<i>.jsonl:1",
        "日本.jsonl:1",
    }
    assert any(path.endswith("caf\\xe9.jsonl") for path in report["input_files"])
    assert "&lt;i&gt;.jsonl" in (tmp_path / "out/curation.html").read_text()


def test_work_grows_with_a_documents_lines_and_not_with_their_square() -> None:
    line = "Some lines have no mark at their end, and are not filled either {}"
    widest = f"The widest of all {'of these lines ' * 6}"
    lines = [widest, *(line.format(number) for number in range(50_000))]
    began = time.perf_counter()
    assert list(paragraphs("\n".join(lines))) == [each.strip() for each in lines]
    assert document_score("\n".join(lines)) > 0
    assert time.perf_counter() - began < 30  # a look at all lines for each takes minutes
