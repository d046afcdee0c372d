"""A document's own word for its language is understood, or the run says that it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from curation_run import curated, kept, removed, samples
from declaration_in_all import ARTICLE_1_IN_ALL

from salamandra_data.errors import DataError

LOCALES = {
    "nb": "no",
    "nb_NO": "no",
    "ca_ES": "ca",
    "ca-ES": "ca",
    "EN": "en",
    "sr_Latn": "sh",
    "pt_BR": "pt",
    "Code": "code",
}


def test_locales_stand_for_their_language_and_lose_nothing(tmp_path: Path) -> None:
    texts = {**ARTICLE_1_IN_ALL, "code": "x = 1\n"}
    records = [{"text": texts[language], "language": locale} for locale, language in LOCALES.items()]
    report = curated(tmp_path, records, check_language=True)
    assert removed(report) == {}
    assert [document["language"] for document in kept(tmp_path)] == list(LOCALES.values())
    assert set(report["read"]) == set(LOCALES.values())


def test_a_language_that_cannot_be_checked_ends_the_run_or_counts_as_malformed(tmp_path: Path) -> None:
    records = [
        {"text": ARTICLE_1_IN_ALL["ca"], "language": "ca"},
        {"text": ARTICLE_1_IN_ALL["es"], "language": "spa"},
    ]
    with pytest.raises(
        DataError, match=r"a\.jsonl:2: its language 'spa' cannot be checked: .*--identify-language"
    ):
        curated(tmp_path, records, check_language=True)
    report = curated(tmp_path / "again", records, check_language=True, skip_malformed=True)
    assert removed(report) == {"malformed": 1}
    assert "'spa'" in samples(tmp_path / "again", "malformed")[0]["detail"]


def test_a_language_that_is_not_checked_keeps_its_name(tmp_path: Path) -> None:
    curated(tmp_path, [{"text": "Vosté ye amable.", "language": "an"}])
    assert [document["language"] for document in kept(tmp_path)] == ["an"]


def test_a_language_that_is_to_be_found_may_be_declared_by_any_name(tmp_path: Path) -> None:
    curated(tmp_path, [{"text": ARTICLE_1_IN_ALL["es"], "language": "spa"}], identify_language=True)
    assert [document["language"] for document in kept(tmp_path)] == ["es"]
