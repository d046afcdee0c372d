"""The continued-training mix is that of 40B_quality_data.yaml in github.com/langtech-bsc/alia."""

from __future__ import annotations

from pathlib import Path

import pytest

from salamandra_data.blend_plan import LanguageFactors, TokenCounts
from salamandra_data.languages import LANGUAGES

RECIPES = Path(__file__).parents[3] / "configs" / "data"
ONE_PASS = 141_117 * 4_194_304  # max_steps, tokens per step
SHARDS = {  # published weights of all shards of a language, copies included
    "hu": [0.004023229739224742],
    "sr": [0.0024932016258994295],
    "ga": [0.0008781329312001317],
    "ast": [9.080784785115181e-05],
    "arg": [4.2433166228046305e-06],
    "gl": [0.00258254626502537] * 5,
    "eu": [0.002824426439613479, 0.0028530581525168432] * 5,
}


def test_every_language_has_its_published_weight() -> None:
    counts = TokenCounts.load(RECIPES / "salamandra-continued-training-counts.yaml").tokens
    factors = LanguageFactors.load(RECIPES / "salamandra-continued-training.yaml")
    weights = {name: float(tokens * factors.factor(name)) / ONE_PASS for name, tokens in counts.items()}
    for language, shards in SHARDS.items():
        assert weights[language] * ONE_PASS == pytest.approx(
            sum(shards) * ONE_PASS, abs=3e5
        )  # of four decimals
    assert sum(weights.values()) == pytest.approx(1, abs=2e-4)


def test_web_text_is_of_the_languages_of_pretraining_but_english_and_of_two_more() -> None:
    counts = TokenCounts.load(RECIPES / "salamandra-continued-training-counts.yaml").tokens
    others = {"papers", "automathtext", "arxiv", "wikipedia", "aya", "starcoder", "openwebmath", "mathpile"}
    assert set(counts) - others - {"fineweb-edu"} == {*LANGUAGES, "ast", "arg"} - {"en", "sh"}
