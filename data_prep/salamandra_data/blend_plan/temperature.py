"""Temperature sampling as language factors.

At temperature T a language's share of the blend is proportional to ``tokens ** (1 / T)``: 1 keeps the natural shares,
infinity would make all equal. A plan has no shares but factors, how often each language is walked per pass; so the
factor of a language is ``c * tokens ** (1 / T - 1)``, where c keeps the length of a pass: the tokens there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from fractions import Fraction

from salamandra_data.blend_plan.factors import LanguageFactors
from salamandra_data.errors import DataError

_EXACT = Context(prec=50)
"""Decimal powers are the same on every machine, which those of floats need not be."""

_WRITTEN = Context(prec=6)


def temperature_factors(tokens: Mapping[str, int], temperature: Fraction) -> LanguageFactors:
    """Factors for shares proportional to ``tokens ** (1 / temperature)``, as decimals of six digits.

    Languages without tokens get factor 0. The factors are exact in the plan; against the formula, the rounding moves
    no share by more than one part in 100,000.

    Raises:
        DataError: the temperature is below 1, or there are no tokens.
    """
    if temperature < 1:
        raise DataError(
            f"temperature = {float(temperature):g} is below 1, which would favour large languages"
        )
    counts = {language: Decimal(count) for language, count in tokens.items() if count}
    if not counts:
        raise DataError("no language has tokens, so there is nothing to blend")
    exponent = _EXACT.divide(Decimal(temperature.denominator), Decimal(temperature.numerator))
    weights = {language: _EXACT.power(count, exponent) for language, count in counts.items()}
    scale = _EXACT.divide(sum(counts.values(), Decimal()), sum(weights.values(), Decimal()))
    factors = {
        language: Fraction(
            _WRITTEN.create_decimal(_EXACT.divide(_EXACT.multiply(weights[language], scale), count))
        )
        for language, count in counts.items()
    }
    return LanguageFactors({language: factors.get(language, Fraction(0)) for language in tokens})
