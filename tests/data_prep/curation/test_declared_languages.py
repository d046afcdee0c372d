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
    "cat_Latn": "ca",
    "nob_Latn": "no",
    "spa": "es",
    "srp_Cyrl": "sr",
    "hbs_Cyrl": "sr",
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
        {"text": ARTICLE_1_IN_ALL["es"], "language": "ast"},
    ]
    with pytest.raises(
        DataError, match=r"a\.jsonl:2: its language 'ast' cannot be checked: .*--identify-language"
    ):
        curated(tmp_path, records, check_language=True)
    report = curated(tmp_path / "again", records, check_language=True, on_error="skip")
    assert removed(report) == {"malformed": 1}
    assert "'ast'" in samples(tmp_path / "again", "malformed")[0]["detail"]


def test_a_language_that_is_not_checked_keeps_its_name(tmp_path: Path) -> None:
    curated(tmp_path, [{"text": "Vosté ye amable.", "language": "an"}])
    assert [document["language"] for document in kept(tmp_path)] == ["an"]


def test_a_language_that_is_to_be_found_may_be_declared_by_any_name(tmp_path: Path) -> None:
    curated(tmp_path, [{"text": ARTICLE_1_IN_ALL["es"], "language": "zho_Hant"}], identify_language=True)
    assert [document["language"] for document in kept(tmp_path)] == ["es"]


def test_text_without_a_language_is_given_the_one_that_is_found(tmp_path: Path) -> None:
    records = [
        *({"text": text} for language, text in ARTICLE_1_IN_ALL.items() if language != "hr"),
        {"text": ARTICLE_1_IN_ALL["hr"], "language": "hr"},
        {"text": "xq zzt 1234 %%%", "language": None},
    ]
    report = curated(tmp_path, records, identify_language=True)
    assert sorted(document["language"] for document in kept(tmp_path)) == sorted(ARTICLE_1_IN_ALL)
    assert removed(report) == {"language": 1}
    assert report["read"]["und"]["documents"] == len(ARTICLE_1_IN_ALL)
    assert samples(tmp_path, "language")[0]["detail"].startswith("lid.176: ")


def test_text_without_a_language_from_parquet_and_plain_text_is_identified_too(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "in").mkdir()
    table = pyarrow.table({"text": [ARTICLE_1_IN_ALL["mt"], ARTICLE_1_IN_ALL["oc"]]})
    pyarrow.parquet.write_table(table, tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "c.txt").write_text(ARTICLE_1_IN_ALL["ga"])
    curated(tmp_path, {}, identify_language=True)
    assert [document["language"] for document in kept(tmp_path)] == ["mt", "oc", "ga"]


def test_a_language_is_needed_where_it_is_not_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="key 'language' is missing"):
        curated(tmp_path, [{"text": "abc"}])
