"""Fertility: into how many tokens a tokenizer cuts each language's words and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from salamandra_data.errors import DataError
from salamandra_data.tokenizer_study.encoders import StudiedTokenizer
from salamandra_data.tokenizer_study.language_text import check_languages
from salamandra_data.tokenizer_study.words import count_words

DEFAULT_REFERENCE = "en"
_BATCH = 256


@dataclass(frozen=True)
class Fertility:
    """What one tokenizer makes of one language's text.

    Attributes:
        words: by BSC's definition (:mod:`salamandra_data.tokenizer_study.words`).
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
