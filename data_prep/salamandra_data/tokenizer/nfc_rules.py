"""Unicode normalization form C as rewriting rules for SentencePiece.

SentencePiece normalizes by replacing, from left to right, the longest prefix that is the source of a
rule. The rules here rewrite every string that is canonically equivalent to a single character, and is not
in NFC, to its NFC: singletons (the Angstrom sign), decomposed letters in any order of their marks, partly
composed ones, and Hangul. Text in NFC is never touched, since no part of it is the source of a rule.
What such rules do not do is to sort marks that do not belong to one character, or to compose a letter
with a mark across another that stays apart; such sequences are rare, and keep their order.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import permutations


def nfc_rules() -> dict[str, str]:
    """Each string that is equivalent to one character but not in NFC, with its NFC form."""
    rules: dict[str, str] = {}
    characters = _characters_by_decomposition()
    for decomposed in characters:
        composed = unicodedata.normalize("NFC", decomposed)
        for source in _equivalent_strings(decomposed, characters):
            if source != composed:
                rules[source] = composed
    return rules


@cache
def nfc_rules_tsv() -> bytes:
    """The rules in SentencePiece's format: code points in hexadecimal, source and target split by a tab."""

    def code_points(text: str) -> str:
        return " ".join(f"{ord(character):X}" for character in text)

    rules = sorted(nfc_rules().items())
    return "".join(f"{code_points(source)}\t{code_points(target)}\n" for source, target in rules).encode()


def _characters_by_decomposition() -> dict[str, list[str]]:
    """Canonical decompositions, of characters that have one, with the characters that decompose so."""
    found: dict[str, list[str]] = {}
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        if unicodedata.is_normalized("NFD", character) or 0xD800 <= code_point < 0xE000:
            continue
        found.setdefault(unicodedata.normalize("NFD", character), []).append(character)
    return found


def _equivalent_strings(decomposed: str, characters: dict[str, list[str]]) -> Iterator[str]:
    """Every string with this canonical decomposition.

    Such a string, decomposed without sorting, is a permutation of the marks; so it is one of the
    permutations, cut into parts, with a part of one or more characters possibly composed.
    """
    for ordering in set(permutations(decomposed)):
        candidate = "".join(ordering)
        if unicodedata.normalize("NFD", candidate) == decomposed:
            yield from _partly_composed(candidate, characters)


def _partly_composed(text: str, characters: dict[str, list[str]]) -> Iterator[str]:
    if not text:
        yield ""
        return
    for length in range(1, len(text) + 1):
        part = text[:length]
        heads = [*([part] if length == 1 else []), *characters.get(part, [])]
        for rest in _partly_composed(text[length:], characters) if heads else ():
            for head in heads:
                yield head + rest
