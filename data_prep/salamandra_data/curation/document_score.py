"""A document's quality score in [0, 1], after CURATE: soft penalties for what does not look like prose.

Penalties multiply within a sentence and within a paragraph. The geometric mean, weighted by words, carries scores from
sentences to their paragraph and from paragraphs to the document. Published (the pipeline of "A CURATEd CATalog",
LREC-COLING 2024) are: a sentence without a first letter or a last mark 0.6 each, words beyond 30 0.97 each, words
missing to 3 0.95 each; shares of characters that are neither letters nor digits, or of one character, above 0.2; in a
paragraph, unbalanced parentheses 0.7, nothing but numbers 0.25, words beyond 200 0.999 each; and in the document, the
ratio of sentences that are not repeated. How the shares are scored, and the weights, are this module's.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_SENTENCE_END = re.compile(r"(?<=[.!?…;:])[\"'»”’)\]]*\s+(?=[^\s])")
_WORD = re.compile(r"\w+")
_OPENING = "\"'«“‘„([{¿¡—–-*•"
_CLOSING = ".!?…:;\"'»”’)]}。"
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
_MOST_WORDS, _LEAST_WORDS = 30, 3
_MOST_PARAGRAPH_WORDS = 200
_MOST_SHARE = 0.2
_FEW = 20  # characters below which shares say nothing


def document_score(text: str) -> float:
    """The score of a text; 0 for one without words."""
    logarithm = 0.0
    words = 0
    sentences: Counter[str] = Counter()
    for paragraph in text.splitlines():
        count = len(_WORD.findall(paragraph))
        if count:
            parts = [part for part in _SENTENCE_END.split(paragraph.strip()) if part.strip()]
            sentences.update(part.strip() for part in parts)
            logarithm += count * math.log(paragraph_score(paragraph, parts))
            words += count
    if not words:
        return 0.0
    total = sum(sentences.values())
    unique = math.sqrt(len(sentences) / total) if total > 1 else 1.0
    return math.exp(logarithm / words) * unique


def paragraph_score(paragraph: str, sentences: list[str]) -> float:
    """The score of a line of text, made of ``sentences``; above 0."""
    words = _WORD.findall(paragraph)
    score = 0.999 ** max(0, len(words) - _MOST_PARAGRAPH_WORDS)
    if any(paragraph.count(opening) != paragraph.count(closing) for opening, closing in _PAIRS):
        score *= 0.7
    if all(word.isdigit() for word in words):
        score *= 0.25
    logarithm = weight = 0.0
    for sentence in sentences:
        count = max(1, len(_WORD.findall(sentence)))
        logarithm += count * math.log(sentence_score(sentence))
        weight += count
    return max(score * math.exp(logarithm / weight) if weight else score, 1e-9)


def sentence_score(sentence: str) -> float:
    """The score of a sentence; above 0."""
    stripped = sentence.strip()
    start = stripped.lstrip(_OPENING + " ")[:1]
    score = 1.0
    if not start or (start.isalpha() and start != start.upper()) or not (start.isalnum()):
        score *= 0.6
    if stripped[-1:] not in _CLOSING:
        score *= 0.6
    words = len(_WORD.findall(stripped))
    score *= 0.97 ** max(0, words - _MOST_WORDS) * 0.95 ** max(0, _LEAST_WORDS - words)
    characters = [character for character in stripped if not character.isspace()]
    if len(characters) >= _FEW:
        odd = sum(not character.isalnum() for character in characters) / len(characters)
        commonest = Counter(characters).most_common(1)[0][1] / len(characters)
        for share in (odd, commonest):
            score *= 1.0 - max(0.0, share - _MOST_SHARE) / (1.0 - _MOST_SHARE)
    return max(score, 1e-9)
