"""Of equal documents and paragraphs the first in the order of the input stays, and the others name it."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curation_run import curated, kept, removed, samples
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.curation.duplicate_search import (
    REPETITION,
    NearSignature,
    SourceName,
    clusters,
    repetitions,
)
from salamandra_data.curation.run import short_names

WORDS = (
    "the committee members discussed every proposal before lunch and agreed that local schools should receive "
    "better libraries because children need quiet places where reading becomes part of daily life again"
)
SHARED = "All rights of this page belong to the regional museum of modern art."


def text(seed: int) -> str:
    chance = random.Random(seed)
    return "\n".join(" ".join(chance.sample(WORDS.split(), k=14)).capitalize() + "." for _ in range(12))


def document(words: str, language: str = "en") -> dict[str, Any]:
    return {"text": words, "language": language}


@pytest.fixture
def repeated() -> str:
    """A text, to come third in the first file and first in the second."""
    return text(1)


def two_files(first: str, second: str) -> dict[str, list[dict[str, Any]]]:
    return {
        "a.jsonl": [document(text(2)), document(text(3)), document(first)],
        "b.jsonl": [document(second), document(text(4))],
    }


def ids(directory: Path) -> list[str]:
    return [found["id"] for found in kept(directory)]


def test_an_exact_duplicate_in_a_later_file_goes_whatever_its_place_there(
    tmp_path: Path, repeated: str
) -> None:
    report = curated(tmp_path, two_files(repeated, f"{repeated}\n"), exact=True)
    assert removed(report) == {"exact": 1}
    assert ids(tmp_path) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "b.jsonl:2"]
    (sample,) = samples(tmp_path, "exact")
    assert (sample["id"], sample["detail"]) == ("b.jsonl:1", "as a.jsonl:3")


def test_the_first_of_near_duplicates_stays_however_they_are_joined(tmp_path: Path, repeated: str) -> None:
    files = two_files(repeated, repeated.replace("quiet", "calm", 1))
    files["b.jsonl"] += [
        document(repeated.replace("lunch", "noon", 1)),
        document(repeated.replace("daily", "every", 1)),
    ]
    report = curated(tmp_path, files, near=True)
    assert removed(report) == {"near": 3}
    assert ids(tmp_path) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "b.jsonl:2"]
    assert {sample["detail"] for sample in samples(tmp_path, "near")} == {"as a.jsonl:3"}


def test_a_paragraph_stays_where_it_comes_first(tmp_path: Path) -> None:
    files = two_files(f"{text(5)}\n{SHARED}", f"{SHARED}\n{text(6)}")
    report = curated(tmp_path, files, paragraphs=True)
    assert report["repeated_paragraphs"] == {"en": {"paragraphs": 1, "utf8_bytes": len(SHARED) + 1}}
    assert [SHARED in found["text"] for found in kept(tmp_path)] == [False, False, True, False, False]


def test_a_document_left_with_too_little_says_what_is_left(tmp_path: Path) -> None:
    curated(tmp_path, [document(SHARED), document(f"{SHARED}\nYes, indeed.")], paragraphs=True)
    assert [sample["detail"] for sample in samples(tmp_path, "paragraphs")] == ["1 repeated, 2 words left"]


def test_lines_stand_for_documents_that_earlier_steps_have_left(tmp_path: Path, repeated: str) -> None:
    files = {"a.jsonl": [document(" "), document(text(7)), document(text(7)), document(repeated)]}
    files["b.jsonl"] = [document(repeated), document(repeated.replace("quiet", "calm", 1))]
    curated(tmp_path, files, exact=True, near=True)
    assert {sample["detail"] for sample in samples(tmp_path, "exact")} == {"as a.jsonl:2", "as a.jsonl:4"}
    assert {sample["detail"] for sample in samples(tmp_path, "near")} == {"as a.jsonl:4"}


def test_files_of_one_name_in_two_directories_are_told_apart(tmp_path: Path, repeated: str) -> None:
    files = {"x/part.jsonl": [document(repeated)], "y/part.jsonl": [document(repeated), document(text(8))]}
    curated(tmp_path, files, exact=True)
    assert ids(tmp_path) == ["x/part.jsonl:1", "y/part.jsonl:2"]
    assert samples(tmp_path, "exact")[0]["detail"] == "as x/part.jsonl:1"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["/data/en.jsonl"], ["en.jsonl"]),
        (["/data/x/a.jsonl", "/data/y/a.jsonl"], ["x/a.jsonl", "y/a.jsonl"]),
        (["/data/a/a.jsonl", "/data/b.jsonl"], ["a/a.jsonl", "b.jsonl"]),
        (["/data/a.jsonl", "s3://bucket/a.jsonl"], ["/data/a.jsonl", "s3://bucket/a.jsonl"]),
    ],
)
def test_names_of_files_are_as_short_as_they_can_be_told_apart(files: list[str], names: list[str]) -> None:
    assert short_names(files) == names  # type: ignore[arg-type]


HASHES = [0, 1, 2**62, 2**63, 2**64 - 1]
RECORD = np.dtype([("hash", "<u8"), ("doc", "<u4"), ("sent", "<u2")])


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 4).map(lambda n: n * (2**64 - 1) // 4), st.integers(0, 2)), max_size=8
        ),
        max_size=4,
    ),
    st.integers(1, 9),
)
def test_whatever_is_compared_at_once_the_repetitions_are_those_of_all(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[int, int]]], at_once: int
) -> None:
    directory = tmp_path_factory.mktemp("signatures")
    first: dict[int, tuple[int, int]] = {}
    expected = []
    for number, entries in enumerate(files):
        rows = sorted((hashed, doc, sent) for sent, (hashed, doc) in enumerate(entries))
        np.array(rows, dtype=RECORD).tofile(directory / f"{number:05d}")
    for number, entries in enumerate(files):
        for doc, sent, hashed in sorted((doc, sent, hashed) for sent, (hashed, doc) in enumerate(entries)):
            if hashed in first:
                expected.append((number, doc, sent, *first[hashed]))
            else:
                first[hashed] = (number, doc)
    paths = sorted(directory.iterdir())
    found = np.concatenate([np.zeros(0, REPETITION), *repetitions(paths, RECORD, at_once=at_once)])
    assert sorted(found.tolist()) == sorted(expected)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), max_size=12))
def test_clusters_keep_their_first_document_only(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int, int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("pairs")
    for part in range(2):
        np.array(pairs[part::2], dtype="<u4").tofile(directory / f"{part}.dups")
    groups = [{(file, doc)} for file in range(3) for doc in range(3)]
    for one_file, one, other_file, other in pairs:
        joined = [group for group in groups if group & {(one_file, one), (other_file, other)}]
        groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    expected = sorted((*node, 0, *min(group)) for group in groups for node in group if node != min(group))
    assert clusters(sorted(directory.iterdir())).tolist() == expected


def entry(number: int) -> str:
    """Of a yearbook: the words are those of every other one, and each figure is another."""
    figures = random.Random(number)
    return " ".join(
        f"In the year {figures.randint(1800, 2020)} the town had {figures.randint(100, 99999)} people, "
        f"{figures.randint(10, 999)} mills and {figures.randint(1, 99)},{figures.randint(1, 9)} % more cattle."
        for _ in range(12)
    )


def accented(number: int) -> str:
    chance = random.Random(number)
    return " ".join(chance.choice(["si", "sí", "te", "té", "mas", "más", "Sol", "sol"]) for _ in range(120))


@pytest.mark.parametrize("make", [entry, accented], ids=["figures", "accents and capitals"])
def test_texts_that_differ_in_what_carries_their_meaning_are_no_near_duplicates(
    tmp_path: Path, make: Callable[[int], str]
) -> None:
    report = curated(tmp_path, [document(make(number)) for number in range(20)], near=True)
    assert removed(report) == {}


def test_unicode_form_and_punctuation_make_no_difference_to_near_duplicates(tmp_path: Path) -> None:
    words = "Més enllà del país, la nació és una comunitat política imaginada: limitada i sobirana. " * 3
    copies = [words, unicodedata.normalize("NFD", words), words.replace(",", " -").replace(". ", "!\n")]
    assert removed(curated(tmp_path, [document(copy, "ca") for copy in copies], near=True)) == {"near": 2}


@pytest.mark.parametrize(("common", "least", "most"), [(0.5, 0.0, 0.17), (0.8, 0.87, 0.99), (0.9, 0.99, 1.0)])
def test_near_duplicates_are_found_as_often_as_the_guide_says(
    tmp_path: Path, common: float, least: float, most: float
) -> None:
    """At 80 % of five words in a row in common, 92 %; see 1 - (1 - s ** 8) ** 14."""
    sign = NearSignature(tmp_path, SourceName(across_sources=True))
    chance = random.Random(common)
    found = 0
    for _ in range(150):
        words = [str(chance.randrange(10**6)) for _ in range(400)]
        other = list(words)
        changed = round(400 * (1 - 2 * common / (1 + common)) / 5)
        for place in range(2, 400, 400 // changed):
            other[place] = "x"
        signatures = [sign.get_signature(sign.get_shingles(" ".join(text))) for text in (words, other)]
        found += any(one == two for one, two in zip(*signatures, strict=True))
    assert least <= found / 150 <= most
