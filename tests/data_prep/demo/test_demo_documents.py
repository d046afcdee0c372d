"""From strings to documents: languages, cleaning, grouping, writing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.demo.documents import CorpusWriter, Document, clean, group
from salamandra_data.languages import LANGUAGES, language_of_locale, language_of_text


def test_there_are_35_languages() -> None:
    assert len(set(LANGUAGES)) == 35


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("nb", "no"),
        ("nb_NO", "no"),
        ("no", "no"),
        ("nn", "nn"),
        ("pt_BR", "pt"),
        ("pt-PT", "pt"),
        ("es_419", "es"),
        ("ca@valencia", "ca"),
        ("sr", "sr"),
        ("sr_Latn", "sh"),
        ("sr@latin", "sh"),
        ("sr_RS@latin", "sh"),
        ("hr_HR", "hr"),
        ("zh_Hans", None),
        ("bs", None),
        ("ast", None),
    ],
)
def test_locales_map_to_corpus_languages(locale: str, language: str | None) -> None:
    assert language_of_locale(locale) == language


def test_serbian_is_told_apart_by_script() -> None:
    assert language_of_text("sr", "Измени лозинку: %s") == "sr"
    assert language_of_text("sr", "Izmeni lozinku: %s") == "sh"
    assert language_of_text("hr", "Promijeni lozinku") == "hr"


@pytest.mark.parametrize("text", ["", "  ", "%(name)s: %(error)s", "12:30", "%d", "…", "{}", "N", "a1"])
def test_what_is_not_language_is_dropped(text: str) -> None:
    assert clean(text) == ""


def test_cleaning_removes_markup_and_keeps_the_words() -> None:
    assert clean("<a href='x'>Torna</a> a   l&#39;inici\r\n\n\nara") == "Torna a l'inici\nara"
    assert clean("E\u0301s un text") == "És un text"
    assert clean("1 < 2 és cert") == "1 < 2 és cert"


strings = st.lists(st.text(st.characters(categories=["L", "Zs"]), min_size=1, max_size=400), max_size=30)


@given(strings)
def test_grouping_loses_nothing_and_keeps_the_order(texts: list[str]) -> None:
    documents = list(group(texts, target_chars=500, least_chars=100))
    assert "\n".join(documents) == "\n".join(texts)
    assert all(len(document) <= 500 + 100 for document in documents)
    assert all(len(document) >= 100 for document in documents[1:])


def document(text: str, language: str = "ca") -> Document:
    return Document(text, language, "package==1", "MIT", "package/file#0")


def test_documents_carry_source_and_licence(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path) as writer:
        writer.add(document("Bon dia"))
        summary = writer.finish()
    line = json.loads((tmp_path / "ca.jsonl").read_text())
    assert line == {
        "text": "Bon dia",
        "language": "ca",
        "source": "package==1",
        "licence": "MIT",
        "id": "package/file#0",
    }
    assert summary["ca"]["documents"] == 1
    assert summary["ca"]["utf8_bytes"] == len("Bon dia")


def test_repeated_documents_are_dropped_per_language(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path) as writer:
        for language in ("ca", "es", "ca"):
            writer.add(document("Hola", language))
        assert writer.languages == ["ca", "es"]
        assert {language: entry["documents"] for language, entry in writer.finish().items()} == {
            "ca": 1,
            "es": 1,
        }


def test_nothing_is_left_of_a_corpus_that_was_not_finished(tmp_path: Path) -> None:
    (tmp_path / "ca.jsonl").write_text("the corpus before\n")
    with pytest.raises(RuntimeError), CorpusWriter(tmp_path) as writer:
        writer.add(document("Bon dia"))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["ca.jsonl"]
    assert (tmp_path / "ca.jsonl").read_text() == "the corpus before\n"
