"""Fertility: into how many tokens a tokenizer cuts each language's words and bytes.

What counts as a word is the definition by which BSC measured the Salamandra tokenizers. Their pattern is
``[ ]?[\\p{L}]+|[ ]?[^\\p{L}\\p{N} \\t\\n]+|[ ]+|[\\t]+|[\\n]+|\\d{1}``
(github.com/langtech-bsc/langtech_tokenizers): a run of letters or of signs, each with the space before it, a run of
spaces, tabs or newlines, or one digit. It counts what a tokenizer could keep whole, so one token per word is the least.

The standard library has no ``\\p``; its ``\\w`` is letters, numbers and the underscore, so letters are ``\\w`` without
the numbers, which are listed from the Unicode tables.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from salamandra_data.errors import DataError
from salamandra_data.tokenizer_study.encoders import StudiedTokenizer
from salamandra_data.tokenizer_study.texts import check_languages

DEFAULT_REFERENCE = "en"
_BATCH = 256


@dataclass(frozen=True)
class Fertility:
    """What one tokenizer makes of one language's text.

    Attributes:
        words: by BSC's definition (:func:`count_words`).
        fallback_tokens: tokens that spell a character in bytes, or stand for an unknown one. None for a tokenizer of
            bytes, which has nothing to fall back from.
        parity: tokens per word over the reference language's; for parallel text, tokens over its tokens. None without
            text in the reference language.
    """

    tokenizer: str
    language: str
    documents: int
    utf8_bytes: int
    words: int
    tokens: int
    fallback_tokens: int | None
    parity: float | None = None

    @property
    def tokens_per_word(self) -> float:
        return self.tokens / self.words

    @property
    def tokens_per_byte(self) -> float:
        return self.tokens / self.utf8_bytes

    @property
    def fallback_share(self) -> float | None:
        """Fallback tokens over all tokens."""
        return None if self.fallback_tokens is None else self.fallback_tokens / max(self.tokens, 1)


def measure_fertility(
    tokenizers: Sequence[StudiedTokenizer],
    texts: Mapping[str, Sequence[str]],
    *,
    reference: str | None = None,
    parallel: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> list[Fertility]:
    """Measure every tokenizer on every language.

    Args:
        texts: documents by language.
        reference: the language to which ``parity`` compares; default English, and no parity without English text.
        parallel: the texts are translations of each other, so their tokens compare directly.
        report: called with one line before each tokenizer.
    Returns:
        tokenizers in their order, and for each the languages in the order of ``texts``.
    Raises:
        DataError: two tokenizers of one name, a language without words, or no text in the reference language.
    """
    names = [tokenizer.name for tokenizer in tokenizers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two tokenizers are called {twice[0]!r}: give names with NAME=PATH")
    if reference is not None or parallel:
        check_languages("--reference", [reference or DEFAULT_REFERENCE], texts)
    words = {language: sum(map(count_words, documents)) for language, documents in texts.items()}
    if empty := [language for language, count in words.items() if not count]:
        raise DataError(f"the text in {', '.join(empty)} has no words")
    results: list[Fertility] = []
    for tokenizer in tokenizers:
        report(f"measuring {tokenizer.name}: {len(texts)} languages")
        measured = [
            _measure(tokenizer, language, documents, words[language]) for language, documents in texts.items()
        ]
        results += _with_parity(measured, reference or DEFAULT_REFERENCE, parallel)
    return results


def _measure(tokenizer: StudiedTokenizer, language: str, documents: Sequence[str], words: int) -> Fertility:
    counts = [
        tokenizer.count(documents[start : start + _BATCH]) for start in range(0, len(documents), _BATCH)
    ]
    fallback = [count.fallback for count in counts if count.fallback is not None]
    utf8_bytes = sum(len(document.encode()) for document in documents)
    return Fertility(
        tokenizer.name,
        language,
        len(documents),
        utf8_bytes,
        words,
        sum(count.tokens for count in counts),
        sum(fallback) if len(fallback) == len(counts) else None,
    )


def _with_parity(measured: list[Fertility], reference: str, parallel: bool) -> list[Fertility]:
    base = next((entry for entry in measured if entry.language == reference), None)
    if base is None:
        return measured

    def ratio(entry: Fertility, base: Fertility) -> float:
        return entry.tokens / base.tokens if parallel else entry.tokens_per_word / base.tokens_per_word

    return [replace(entry, parity=ratio(entry, base)) for entry in measured]


def count_words(text: str) -> int:
    """How many words a text has: runs of letters, of signs and of blanks, and single digits."""
    return sum(1 for _ in word_pattern().finditer(text))


@cache
def word_pattern() -> re.Pattern[str]:
    """The pattern of one word."""
    other_numbers = "".join(
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Nl", "No")
    )
    letters = rf"[^\W\d_{other_numbers}]+"
    signs = r"(?:(?![ \t\n])[\W_])+"
    return re.compile(rf" ?{letters}| ?{signs}| +|\t+|\n+|\d")
