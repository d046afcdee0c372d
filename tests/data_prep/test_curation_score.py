"""Quality scores: prose passes, and what is not prose does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.curation.document_score import document_score, paragraph_score, sentence_score

GOOD = "The committee met on Tuesday and agreed to publish its report before the end of the month."


@pytest.mark.parametrize(
    ("sentence", "score"),
    [
        (GOOD, 1.0),
        (GOOD[0].lower() + GOOD[1:], 0.6),
        (GOOD.rstrip("."), 0.6),
        ("Yes indeed.", 0.95),
        ("«Així ho va dir el president.»", 1.0),
        ("Ό,τι και να γίνει, θα είμαστε εδώ.", 1.0),
        (" ".join(["Word", *["word"] * 31]) + ".", None),
    ],
)
def test_sentences_lose_what_is_published(sentence: str, score: float | None) -> None:
    if score is None:
        longer = sentence_score(sentence)
        shorter = sentence_score(sentence.replace(" word", "", 1))
        assert longer / shorter == pytest.approx(0.97, rel=2e-3)
    else:
        assert sentence_score(sentence) == pytest.approx(score)


def test_paragraphs_lose_for_parentheses_numbers_and_length() -> None:
    assert paragraph_score(GOOD, [GOOD]) == pytest.approx(1.0)
    unbalanced = GOOD.replace("Tuesday", "(Tuesday")
    assert paragraph_score(unbalanced, [unbalanced]) == pytest.approx(0.7 * sentence_score(unbalanced))
    assert paragraph_score("1999 2000 2001.", ["1999 2000 2001."]) == pytest.approx(0.25)
    words = GOOD.count(" ") + 1
    long = " ".join([GOOD] * 30)
    assert paragraph_score(long, [GOOD] * 30) == pytest.approx(0.999 ** (30 * words - 200))


@given(st.text(max_size=300))
def test_any_text_has_a_score_between_0_and_1(text: str) -> None:
    assert 0.0 <= document_score(text) <= 1.0


def test_prose_passes_and_menus_repetitions_and_tables_do_not() -> None:
    prose = "\n".join(
        f"{GOOD[:-1]} in session {number}. Its members were not paid for that." for number in range(3)
    )
    assert document_score(prose) > 0.8
    assert document_score("Home\nAbout us\nlog in\nsubscribe now\nnext page") < 0.5
    assert document_score("\n".join([GOOD] * 20)) < 0.5
    assert document_score("1 2 3\n4 5 6\n| 7 | 8 |") < 0.3
    assert document_score("") == 0.0
