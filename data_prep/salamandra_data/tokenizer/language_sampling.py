"""How much of each language goes into tokenizer training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.blend_plan import LanguageFactors, TokenCounts
from salamandra_data.errors import DataError

_HASH_RANGE = 2.0**64


@dataclass(frozen=True)
class LanguageSample:
    """One language's part: ``target_bytes`` out of ``available_bytes``; above 1 the text is repeated."""

    language: str
    available_bytes: int
    target_bytes: float

    @property
    def repeats(self) -> float:
        """How often each line is used on average; below 1 the share of lines used."""
        return self.target_bytes / self.available_bytes

    def copies(self, seed: int, line_key: bytes) -> int:
        """How many times one line is used: ``repeats`` in expectation, decided by a hash, not by order."""
        whole = int(self.repeats)
        digest = hashlib.blake2b(
            line_key, key=seed.to_bytes(8, "little", signed=True), digest_size=8
        ).digest()
        return whole + (int.from_bytes(digest, "little") / _HASH_RANGE < self.repeats - whole)


def plan_sampling(
    available_bytes: Mapping[str, int],
    *,
    alpha: float,
    budget_bytes: int,
    max_repeats: float,
    language_sizes: Mapping[str, int] | None = None,
) -> dict[str, LanguageSample]:
    """Divide a budget among languages in proportion to ``(share of the text) ** alpha``.

    The share is that of the available bytes, or of ``language_sizes`` when the text at hand is a sample of a corpus
    with other proportions.

    With ``alpha`` 0 every language gets the same number of bytes; with 1 each keeps its natural share.
    A language with less text than its part is repeated, at most ``max_repeats`` times; what it cannot
    fill is divided among the others in the same proportion.

    Raises:
        DataError: no text, a language without a size, or an option out of its range.
    """
    sizes = available_bytes if language_sizes is None else language_sizes
    if without := sorted(
        language for language, size in available_bytes.items() if size and sizes.get(language, 0) <= 0
    ):
        raise DataError(
            f"no size is given for {', '.join(without)}\n  add what the corpus holds of them, or leave their text out"
        )
    total = sum(available_bytes.values())
    if total == 0:
        raise DataError("the input holds no text to train a tokenizer on")
    if not 0.0 <= alpha <= 1.0:
        raise DataError(f"alpha = {alpha:g} is not between 0 (uniform over languages) and 1 (natural shares)")
    if budget_bytes <= 0:
        raise DataError(f"bytes budget = {budget_bytes} is not positive")
    if not 1 <= max_repeats < math.inf:
        raise DataError(f"max repeats = {max_repeats:g} is not a number from 1 up")
    proportions = {
        language: (sizes[language] / total) ** alpha for language, size in available_bytes.items() if size
    }
    targets: dict[str, float] = {}
    remaining = float(budget_bytes)
    while proportions:
        scale = remaining / sum(proportions.values())
        limits = {language: available_bytes[language] * max_repeats for language in proportions}
        full = [language for language, part in proportions.items() if part * scale > limits[language]]
        if not full:
            targets |= {language: part * scale for language, part in proportions.items()}
            break
        for language in full:
            targets[language] = limits[language]
            remaining -= limits[language]
            del proportions[language]
    return {
        language: LanguageSample(language, available_bytes[language], targets[language])
        for language in sorted(targets)
    }


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
