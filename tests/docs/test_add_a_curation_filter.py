"""What docs/how-to/add-a-curation-filter.md says of the account; that it can be followed, test_pages.py says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from followed_pages import LANGUAGES, run_shell, write_text
from pages import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "how-to" / "add-a-curation-filter.md"


def test_the_page_is_right_about_table_samples_findings_and_page(tmp_path: Path) -> None:
    write_text(tmp_path / "raw", 20, 2, LANGUAGES[:2])
    for block in blocks(PAGE):
        if block.file_name is not None:
            (tmp_path / block.file_name).write_text(block.text)
    with (tmp_path / "raw/ca.jsonl").open("a") as stream:
        stream.write(json.dumps({"text": "Any 1987: 12, 1988: 14, 1989: 15.", "language": "ca"}) + "\n")
    (tmp_path / "my-filters.yaml").write_text(
        (tmp_path / "my-filters.yaml").read_text().replace("0.02", "0.2")
    )
    (command,) = [block.text.strip() for block in blocks(PAGE) if block.is_shell]
    printed = run_shell(f"{command} --no-check-language --workers 2", tmp_path)
    assert "numbers" in next(line for line in printed.splitlines() if line.startswith("language")).split()
    report = json.loads((tmp_path / "curated/curation.json").read_text())
    assert report["removed"]["numbers"] == {"ca": {"documents": 1, "utf8_bytes": 33}}
    assert report["reasons"]["numbers"] == "more figures than text"
    assert report["findings"]["numbers"].keys() == {"ca", "en"} and report["findings"]["numbers"]["en"] > 20
    (sample,) = map(json.loads, (tmp_path / "curated/removed/numbers.jsonl").read_text().splitlines())
    assert sample["id"] == "ca.jsonl:21" and sample["detail"].endswith("% are figures")
    page = (tmp_path / "curated/curation.html").read_text()
    for shown in ("numbers: more figures than text", "Figures in documents that passed", "max_share 0.2"):
        assert shown in page


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_share: 0.02", "max_share: 2", "filters[0] .*NumberShare: options.max_share = 2: "),
        ("max_share: 0.02", "least: 1", "options.least = 1: "),
        ("number_share.py:", "absent.py:", "filters[0] .*absent.py:NumberShare: FileNotFoundError"),
        ("number_share.py:NumberShare", "json:JSONDecoder", "json:JSONDecoder: is no class below"),
        (
            "number_share.py:NumberShare",
            "no_such_module:X",
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("class:", "klass:", "must have the keys `class`"),
        ("filters:", "steps:", "must hold the key `filters` alone"),
    ],
)
def test_a_file_that_names_no_filter_is_refused_before_anything_is_read(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    write_text(tmp_path / "raw", 1, 2, ("ca",))
    for block in blocks(PAGE):
        if block.file_name is not None:
            (tmp_path / block.file_name).write_text(block.text)
    wanted = tmp_path / "my-filters.yaml"
    wanted.write_text(wanted.read_text().replace(old, new))
    with pytest.raises(AssertionError, match=message.replace("[0]", r"\[0\]")) as caught:
        run_shell("salamandra data curate --input raw --out curated --filters my-filters.yaml", tmp_path)
    assert "Traceback" not in str(caught.value) and not (tmp_path / "curated").exists()
