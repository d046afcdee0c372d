"""The language of a document is not decided by one model alone where that model is weak."""

from __future__ import annotations

import pytest
from declaration_in_all import ARTICLE_1_IN_ALL

from salamandra_data.curation.language_filter import UNKNOWN, LanguageOpinions, Opinion
from salamandra_data.languages import LANGUAGES

# lid.176 takes the sentence for Serbian, py3langid for Croatian, and so it does with the Croatian one.
SAME_SENTENCE = {"hr", "sh"}


def opinions(first: Opinion, second: Opinion) -> LanguageOpinions:
    return LanguageOpinions("text", lambda text: first, lambda text: second)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_recognised_and_others_are_not(language: str) -> None:
    found = LanguageOpinions(ARTICLE_1_IN_ALL[language])
    assert found.allow(language)
    assert found.language(declared=language) == language
    assert found.language() == ("sh" if language in SAME_SENTENCE else language)
    for other in {"fi", "en", "uk", "mt"} - {language}:
        assert not found.allow(other), other
        assert found.language(declared=other) != other


def test_nonsense_is_of_no_language() -> None:
    assert LanguageOpinions("xq zzt 1234 %%%").language() == UNKNOWN


@pytest.mark.parametrize(
    ("first", "second", "language"),
    [
        (("ca", 0.7), ("oc", 0.99), "oc"),
        (("fr", 0.97), ("oc", 0.99), "oc"),
        (("es", 0.95), ("gl", 0.99), "gl"),
        (("cs", 0.95), ("sk", 0.99), "sk"),
        (("no", 0.95), ("nn", 0.8), "nn"),
        (("de", 0.6), ("nn", 0.9), "nn"),
        (("hr", 0.9), ("bs", 0.9), "sh"),
        (("hr", 0.9), ("hr", 0.9), "hr"),
        (("sh", 0.6), ("sl", 0.8), "sh"),
        (("oc", 0.6), ("it", 0.8), "oc"),
        (("hu", 0.5), ("mt", 1.0), "mt"),
        (("it", 0.1), ("mt", 1.0), "mt"),
        (("de", 0.6), ("nl", 0.9), UNKNOWN),
        (("ast", 0.9), ("ast", 0.9), UNKNOWN),
    ],
)
def test_undeclared_text_gets_what_both_opinions_are_worth(
    first: Opinion, second: Opinion, language: str
) -> None:
    assert opinions(first, second).language() == language


@pytest.mark.parametrize(
    ("declared", "first", "second", "language"),
    [
        ("oc", ("ca", 0.7), ("oc", 0.99), "oc"),
        ("oc", ("oc", 0.6), ("ca", 0.99), "oc"),
        ("pt", ("pt", 0.8), ("gl", 0.99), "pt"),
        ("hr", ("sr", 0.7), ("bs", 0.9), "hr"),
        ("sr", ("sr", 0.7), ("hr", 0.9), "sh"),  # in Latin script
        ("sh", ("hr", 0.7), ("hr", 0.9), "sh"),
        ("fi", ("ca", 0.97), ("ca", 0.99), "ca"),
        ("fi", ("de", 0.6), ("nl", 0.9), UNKNOWN),
    ],
)
def test_where_the_models_disagree_a_declared_language_stays_if_one_names_it(
    declared: str, first: Opinion, second: Opinion, language: str
) -> None:
    assert opinions(first, second).language(declared) == language


def test_only_a_sure_label_that_hides_no_other_language_spares_the_second_opinion() -> None:
    def unasked(text: str) -> Opinion:
        raise AssertionError("not to be asked")

    assert LanguageOpinions("text", lambda text: ("de", 0.95), unasked).language() == "de"
    for first in (("de", 0.8), ("ca", 0.99), ("es", 0.99), ("cs", 0.99), ("no", 0.99)):
        with pytest.raises(AssertionError):
            LanguageOpinions("text", lambda text, first=first: first, unasked).language()  # type: ignore[misc]
