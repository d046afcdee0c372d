"""Quality scores: prose passes, and what is not prose does not."""

from __future__ import annotations

import math
import textwrap

import pytest
from declaration_in_all import ARTICLE_1_IN_ALL
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.curation.quality_score import (
    document_score,
    paragraph_score,
    paragraphs,
    sentence_score,
    sentences,
)
from salamandra_data.languages import LANGUAGES

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


def test_a_paragraph_has_the_geometric_mean_of_its_sentences() -> None:
    two = f"{GOOD} Nobody was paid for that"
    assert paragraph_score(two, sentences(two)) == pytest.approx(math.sqrt(0.6))


@pytest.mark.parametrize(
    ("marks", "factor"),
    [(3, 1.0), (2, 1.0), (1, 0.4**0.5), (0, 0.4)],  # of the two that 40 words need
)
def test_a_document_loses_for_missing_punctuation(marks: int, factor: float) -> None:
    words = ["Word", *["word"] * 19]
    lines = [" ".join(words) + ("," if number < marks else ")") for number in range(2)]
    if marks == 3:
        lines[0] = lines[0].replace(" ", ", ", 1)
    plain = math.prod(paragraph_score(line, [line]) for line in lines) ** 0.5
    unique = 1.0 if len(set(lines)) == 2 else math.sqrt(0.5)
    assert document_score("\n".join(lines)) == pytest.approx(plain * unique * factor)


@pytest.mark.parametrize("language", LANGUAGES)
def test_good_prose_of_every_language_passes(language: str) -> None:
    assert document_score(ARTICLE_1_IN_ALL[language]) > 0.95


@pytest.mark.parametrize(
    "text",
    [
        "The committee agreed on two points: the report must be published; its members will not be paid for that.",
        "Die Regierung will z. B. die Schulen und u. a. die Bibliotheken der Stadt besser ausstatten.",
        "The boats of J. K. Rowling, e.g. those known as Mr. smith, are approx. 300 ft. long.",
        '"Come in!" he said, and closed the door behind the two visitors from the city.',
        "La commission a répondu : « oui, nous publierons le rapport au printemps », puis elle s’est séparée.",
        "Τι είναι η ζωή; Μια σκιά, μια φαντασία· και το μεγαλύτερο καλό είναι μικρό.",
        "’s Avonds zat de commissie bij elkaar, en niemand was tegen het voorstel van de voorzitter.",
        "The plan has two steps: a) we write the report and b) we publish it in spring.",
    ],
)
def test_marks_inside_a_sentence_do_not_end_it(text: str) -> None:
    assert document_score(text) == pytest.approx(1.0)


def test_sentences_end_at_marks_before_a_capital() -> None:
    assert sentences("¿Què és? «No ho sé.» Va dir en J. Puig… I va marxar! després, de nit. 20 anys.") == [
        "¿Què és?",
        "«No ho sé.»",
        "Va dir en J. Puig…",
        "I va marxar! després, de nit. 20 anys.",
    ]
    assert sentences("Τι είναι; Μια σκιά.") == ["Τι είναι;", "Μια σκιά."]
    assert sentences("Qui sap; Una ombra.") == ["Qui sap; Una ombra."]
    assert sentences(". ! ?") == [". ! ?"]


PARAGRAPH = (
    "The members of the committee met on Tuesday and agreed to publish the Annual Report of the Museum. Its chair, "
    "Maria Puig, said that nobody was opposed to the proposal. The Ministry of Culture had asked for it in spring, "
    "and several members of Parliament had done so before."
)


@pytest.mark.parametrize("width", [60, 72, 80])
def test_prose_broken_for_its_length_scores_as_it_would_unbroken(width: int) -> None:
    other = PARAGRAPH.replace("Museum", "Library").replace("Puig", "Serra").replace("spring", "autumn")
    whole = f"Spring\n\n{PARAGRAPH}\n\n{other}"
    broken = "\n\n".join(textwrap.fill(paragraph, width) for paragraph in whole.split("\n\n"))
    assert broken.count("\n") > 8
    assert list(paragraphs(broken)) == ["Spring", PARAGRAPH, other]
    assert document_score(broken) == pytest.approx(document_score(whole))


def test_lines_of_lists_and_menus_stay_apart() -> None:
    menu = ["Home", "About us", "log in", "subscribe now"]
    assert list(paragraphs("\n".join(menu))) == menu
    titles = [
        "The Annual Report of the Museum of Modern Art",
        "Boats of the Northern Islands and of Those Who Sail in Them, an Exhibition",
        "Paintings of the Late Nineteenth Century in Private Collections",
        "Libraries and Schools of Catalonia",
    ]
    assert list(paragraphs("\n".join(titles))) == titles


@given(st.text(max_size=300))
def test_no_character_but_space_is_lost_between_text_and_sentences(text: str) -> None:
    parts = [sentence for paragraph in paragraphs(text) for sentence in sentences(paragraph)]
    assert "".join("".join(parts).split()) == "".join(text.split())


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
