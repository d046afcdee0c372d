"""The account of a run shows all that went and why, and no personal data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from curation_run import curated, samples
from declaration_in_all import ARTICLE_1_IN_ALL

from salamandra_data.curation.counts import Removals

FOOTER = "All rights of this page belong to the regional museum of modern art."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with documents removed for many reasons, some of which hold personal data."""
    directory = tmp_path_factory.mktemp("page")
    english, catalan = ARTICLE_1_IN_ALL["en"], ARTICLE_1_IN_ALL["ca"]
    records = [
        {"text": f"{english}\n{FOOTER}", "language": "en"},
        {"text": f"{english} We know it.\n{FOOTER}", "language": "en"},
        {"text": f"{english}\n{FOOTER}", "language": "en"},
        {"text": f"{catalan} Escriviu a anna@example.cat.", "language": "en"},
        {"text": "menu | log in | +34 931 234 567 | <b>", "language": "en"},
        {"text": "Mail anna@example.org.", "language": "zz"},
        {"text": "x = 1  # anna@example.org", "language": "code"},
        {"text": " ", "language": "en"},
    ]
    curated(
        directory, records, on_error="skip", check_language=True, score=True, exact=True, paragraphs=True,
        mask_personal_data=True,
    )  # fmt: skip
    return directory


@pytest.fixture
def page(run: Path) -> str:
    return (run / "out/curation.html").read_text()


def words(page: str) -> str:
    """What a reader sees, without the plots."""
    found: list[str] = []

    class Parser(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Parser().feed(re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL))
    return " ".join(" ".join(found).split())


def test_the_page_shows_documents_text_paragraphs_settings_and_files(page: str) -> None:
    seen = words(page)
    assert "8 documents" in seen and "3 kept (37.5%)" in seen
    assert "language: in another language than declared" in seen and "exact: the text of an earlier" in seen
    assert (
        re.search(r"en \d+ B|en [\d.]+ kB", seen) and f"1 {len(FOOTER) + 1} B" in seen
    )  # one footer taken out
    assert "min_score 0.8" in seen and "identify_language no" in seen and "harm none" in seen
    assert "1 input files" in seen and "a.jsonl" in seen
    assert page.count("<svg") == 2
    assert not re.search(r"<(link|script|img|iframe)", page)  # needs no network


def test_samples_say_what_was_found_instead(run: Path, page: str) -> None:
    (language,) = samples(run, "language")
    assert re.fullmatch(r"lid\.176: ca \d\.\d\d, py3langid: ca \d\.\d\d", language["detail"])
    (exact,) = samples(run, "exact")
    assert exact["detail"] == "as a.jsonl:1"
    (malformed,) = samples(run, "malformed")
    assert "'zz'" in malformed["detail"]
    for detail in (language["detail"], exact["detail"], "score 0."):
        assert detail in words(page)


def test_samples_hold_no_personal_data_though_they_were_removed_before_it_was_masked(run: Path) -> None:
    (language,), (score,) = samples(run, "language"), samples(run, "score")
    assert language["text"].endswith("Escriviu a <EMAIL>.") and "<PHONE>" in score["text"]
    for path in (run / "out").rglob("*"):
        if path.is_file() and path.suffix != ".zst":
            content = path.read_bytes()
            assert b"anna@" not in content and b"931 234" not in content, path


def test_markup_in_documents_is_text(page: str) -> None:
    assert "&lt;b&gt;" in page and "| <b>" not in page


def test_personal_data_is_left_in_samples_where_it_is_left_in_documents(tmp_path: Path) -> None:
    curated(tmp_path, [{"text": "anna@example.org | 1", "language": "en"}], score=True, min_score=0.9)
    assert samples(tmp_path, "score")[0]["text"] == "anna@example.org | 1"


def test_what_stands_across_the_end_of_a_sample_is_masked_too() -> None:
    from datatrove.data import Document

    removals = Removals("score", samples=1, seed=0)
    text = "x " * 993 + "write to anna.maria.serra@example.org now"
    removals.write(Document(text=text, id="a:1", metadata={"language": "en"}))
    removals.mask()
    (sample,) = removals.sample()
    assert len(sample["text"]) == 2000 and sample["text"].endswith("write to <EMAI")


def test_the_table_on_the_page_adds_up(run: Path) -> None:
    report = json.loads((run / "out/curation.json").read_text())
    total = sum(tally["documents"] for tally in report["read"].values())
    gone = sum(tally["documents"] for by in report["removed"].values() for tally in by.values())
    assert total == 8 and gone + sum(tally["documents"] for tally in report["written"].values()) == total
