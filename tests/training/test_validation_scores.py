"""Scores of several sources are put together by tokens and bytes, and languages are averaged as languages."""

from __future__ import annotations

import math

import pytest

from megatron_salamandra.training.callbacks.validation import summaries
from megatron_salamandra.training.report import LanguageScore


def score(name: str, loss: float, tokens: int, utf8_bytes: int) -> LanguageScore:
    bits = loss * tokens / (utf8_bytes * math.log(2))
    return LanguageScore(name, loss, math.exp(loss), bits, tokens)


def test_a_language_of_two_sources_counts_once_in_the_macro_average() -> None:
    scores = [score("ca", 2.0, 100, 300), score("en", 5.0, 400, 1600), score("wiki-ca", 4.0, 300, 1500)]
    whole, macro, micro = summaries(["ca", "en", "ca"], scores)
    assert (whole.language, whole.tokens) == ("ca (all sources)", 400)
    assert whole.loss == pytest.approx(3.5)
    assert whole.bits_per_byte == pytest.approx(1400 / (1800 * math.log(2)))
    assert (macro.language, macro.tokens) == ("macro", 800)
    assert macro.loss == pytest.approx((3.5 + 5.0) / 2)
    assert micro.loss == pytest.approx((1400 + 2000) / 800)
    assert micro.bits_per_byte == pytest.approx(3400 / (3400 * math.log(2)))


def test_languages_of_one_source_have_no_line_more() -> None:
    names = [
        entry.language for entry in summaries(["ca", "en"], [score("ca", 2.0, 1, 3), score("en", 1.0, 1, 3)])
    ]
    assert names == ["macro", "micro"]
