"""What the natural shares of the languages are of: a corpus, or the blend that is trained on."""

from __future__ import annotations

from pathlib import Path

from salamandra_data.blend_plan import LanguageFactors, TokenCounts
from salamandra_data.errors import DataError


def natural_sizes(sizes: Path | None, factors: Path | None) -> TokenCounts | None:
    """Tokens by language, and where the numbers are from; None, without ``sizes``, for the bytes of the text at hand.

    Args:
        sizes: file of token counts, of a corpus.
        factors: file of language factors, that multiply the counts.
    Raises:
        DataError: a file that cannot be read, or factors without sizes.
    """
    if sizes is None:
        if factors is not None:
            raise DataError(f"--factors {factors}: multiplies --language-sizes, which is not given")
        return None
    counts = TokenCounts.load(sizes)
    if factors is None:
        return counts
    by_language = LanguageFactors.load(factors)
    return TokenCounts(
        {language: int(tokens * by_language.factor(language)) for language, tokens in counts.tokens.items()},
        f"{counts.source}, times the factors in {factors.name}",
    )
