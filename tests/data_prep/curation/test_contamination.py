"""What a benchmark asks is found in documents, whatever file it comes in, and what cannot be found is told."""

from __future__ import annotations

import gzip
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from curation_run import curated, removed

from megatron_salamandra.cli import main
from salamandra_data.curation.contamination import NgramIndex, TaskFile
from salamandra_data.errors import DataError, DataWarning

QUESTION = "Quina és la capital del país més petit de tot el nord d'Europa avui dia?"
ITEMS: list[Any] = [{"q": QUESTION, "choices": ["a", {"b": "c d"}]}, {"q": "Massa curta?", "choices": []}]


def lines(items: list[Any]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def parquet(items: list[Any]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"q": [item["q"] for item in items], "n": [1, 2]}), sink)
    return sink.getvalue()


def arrow(items: list[Any]) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"q": [item["q"] for item in items]})
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


FILES = {
    "task.jsonl": lines(ITEMS),
    "task.jsonl.gz": gzip.compress(lines(ITEMS), mtime=0),
    "task.ndjson.zst": zstandard.compress(lines(ITEMS)),
    "task.json": json.dumps(ITEMS, indent=2).encode(),
    "task.json.gz": gzip.compress(json.dumps({"version": "1", "data": ITEMS}, indent=2).encode(), mtime=0),
    "lines.json": lines(ITEMS),
    "task.txt": f"{QUESTION}\n \nMassa curta?\n".encode(),
    "task.txt.zst": zstandard.compress(f"\ufeff{QUESTION}\n\nMassa curta?".encode()),
    "task.v1.parquet": parquet(ITEMS),
    "task.arrow": arrow(ITEMS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_item_of_a_task_file_of_any_format_is_looked_for_or_counted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    index = NgramIndex([path], 13)
    assert index.first_in(f"Va demanar: {QUESTION} Ningú no ho sabia.") is not None
    (found,) = index.files
    assert (found.items, found.too_short) == (2, 1)
    assert found.ngrams == len(index) >= 3


def test_case_punctuation_and_unicode_form_make_no_difference(tmp_path: Path) -> None:
    (tmp_path / "composed.txt").write_text(unicodedata.normalize("NFC", QUESTION))
    (tmp_path / "apart.txt").write_text(unicodedata.normalize("NFD", QUESTION))
    composed, apart = (NgramIndex([tmp_path / name], 13) for name in ("composed.txt", "apart.txt"))
    for index in (composed, apart):
        for form in ("NFC", "NFD"):
            text = unicodedata.normalize(form, f"Va dir: {QUESTION.upper().replace(' ', ', ')} Ningú.")
            assert index.first_in(text) is not None, form
        assert index.first_in(QUESTION.replace("petit", "gran")) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("task.csv", b"a,b\n", r"task\.csv: its name does not tell a known format; known are \*\.jsonl"),
        ("task.gz", b"", r"task\.gz: its name does not tell"),
        ("task.jsonl", b"{oops\n", r"task\.jsonl:1: not JSON"),
        ("task.json", b"[1,\n2", r"task\.json:2: not JSON"),
        ("task.jsonl.gz", gzip.compress(lines(ITEMS) * 99, mtime=0)[:60], r"task\.jsonl\.gz: cannot be read"),
        ("task.jsonl.zst", zstandard.compress(lines(ITEMS))[:-5], r"task\.jsonl\.zst: cannot be read"),
        ("task.parquet", b"not", r"task\.parquet: cannot be read"),
        ("task.txt", b"\xff\xfe", r"task\.txt: cannot be read"),
        (
            "short.jsonl",
            lines(ITEMS[1:]),
            r"none of its 1 items has 13 words.*\n  its longest has 2: take a smaller",
        ),
    ],
)
def test_a_task_file_that_would_protect_nothing_is_refused_before_anything_is_read(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        curated(tmp_path, [{"text": "a", "language": "en"}], decontaminate=(tmp_path / name,))
    assert not (tmp_path / "out").exists()


def test_the_account_says_what_was_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.jsonl.gz").write_bytes(FILES["task.jsonl.gz"])
    records = [
        {"text": f"Una pregunta: {QUESTION}", "language": "ca"},
        {"text": "Cap pregunta.", "language": "ca"},
    ]
    report = curated(tmp_path, records, decontaminate=(tmp_path / "task.jsonl.gz",))
    assert removed(report) == {"contaminated": 1}
    (told,) = report["task_files"]
    assert TaskFile(**told) == TaskFile(str(tmp_path / "task.jsonl.gz"), 2, 1, told["ngrams"])
    page = (tmp_path / "out/curation.html").read_text()
    assert "Benchmarks looked for" in page and "task.jsonl.gz" in page
    command = [
        "data",
        "curate",
        "--input",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "cli"),
        "--no-check-language",
    ]
    command += ["--no-score", "--keep-near", "--decontaminate", str(tmp_path / "task.jsonl.gz")]
    assert main(command) == 0
    told_lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["task.jsonl.gz", "2", "1", str(told["ngrams"])] in told_lines


READ_AS_DOCUMENTS_ARE = {
    "bom.jsonl": b"\xef\xbb\xbf" + lines(ITEMS),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ITEMS).encode(),
    "nan.jsonl": lines([{**ITEMS[0], "score": float("nan")}, ITEMS[1]]),
    "nan.json": json.dumps([{**ITEMS[0], "score": float("nan")}, ITEMS[1]]).encode(),
    "UP.JSONL": lines(ITEMS),
    "UP.JSON.GZ": gzip.compress(json.dumps(ITEMS).encode(), mtime=0),
    "UP.TXT.ZST": zstandard.compress(f"{QUESTION}\r\n\r\nMassa curta?".encode()),
    "UP.PARQUET": parquet(ITEMS),
    "Up.Arrow": arrow(ITEMS),
    "blank.jsonl": b"\n" + lines(ITEMS).replace(b"\n", b"\r\n\n"),
}


@pytest.mark.parametrize("name", READ_AS_DOCUMENTS_ARE)
def test_task_files_are_read_as_documents_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(READ_AS_DOCUMENTS_ARE[name])
    (found,) = NgramIndex([tmp_path / name], 13).files
    assert (found.items, found.too_short) == (2, 1)


def test_directories_and_patterns_of_task_files_are_searched(tmp_path: Path) -> None:
    for name in ("a.jsonl", "below/b.json", ".hidden/c.jsonl", "notes.md"):
        (tmp_path / "tasks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks" / name).write_bytes(lines(ITEMS))
    with pytest.warns(DataWarning, match=r"left out because of their endings: notes\.md"):
        found = NgramIndex([tmp_path / "tasks"], 13).files
    assert [Path(entry.path).name for entry in found] == ["a.jsonl", "b.json"]
    assert len(NgramIndex([str(tmp_path / "tasks" / "*.jsonl")], 13).files) == 1
    with pytest.raises(DataError, match=r"--decontaminate .*\.hidden/nothing: no such file"):
        NgramIndex([tmp_path / ".hidden" / "nothing"], 13)


def test_other_contents_of_a_task_file_make_another_run(tmp_path: Path) -> None:
    (tmp_path / "task.jsonl").write_bytes(lines(ITEMS))
    options = {"decontaminate": (tmp_path / "task.jsonl",)}
    curated(tmp_path, [{"text": "a", "language": "en"}], **options)
    curated(tmp_path, {}, **options)
    (tmp_path / "task.jsonl").write_bytes(lines(ITEMS[:1]))
    with pytest.raises(DataError, match="holds a run on other input or with other options"):
        curated(tmp_path, {}, **options)
