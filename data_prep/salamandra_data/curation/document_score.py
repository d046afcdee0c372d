"""A document's quality score in [0, 1], after CURATE: soft penalties for what does not look like prose.

Penalties multiply within a sentence, a paragraph and the document. The geometric mean carries scores from sentences to
their paragraph and, weighted by words, from paragraphs to the document. Published (the pipeline of "A CURATEd
CATalog", LREC-COLING 2024) are: a sentence without a first letter or a last mark 0.6 each, words beyond 30 0.97 each,
words missing to 3 0.95 each; shares of characters that are neither letters nor digits, or of one character, above 0.2;
in a paragraph, unbalanced parentheses 0.7, nothing but numbers 0.25, words beyond 200 0.999 each; and in the document,
the ratio of sentences that are not repeated, and fewer than one of ``! , . : ; ?`` in 20 words, down to 0.4 for none.

Not as published: how shares and repetition are scored, the weights, and where paragraphs and sentences end are this
module's. Words per document and per sentence are not scored a second time for the whole document: the published
pipeline interpolates between points that are not published. Marks of a list, as in "a) this and b) that", are no
parentheses.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from salamandra_data.curation.sentences import CLOSING, first_letter, paragraphs, sentences

_WORD = re.compile(r"\w+")
_PUNCTUATION = re.compile("[!,.:;?…·\u037e]")
_LIST_MARK = re.compile(r"(?<![\w(])\w{1,2}\)")
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
_MOST_WORDS, _LEAST_WORDS = 30, 3
_MOST_PARAGRAPH_WORDS = 200
_MOST_SHARE = 0.2
_FEW = 20  # characters below which shares say nothing
_LEAST_PUNCTUATION = 1 / 20  # marks per word
_NO_PUNCTUATION = 0.4


def document_score(text: str) -> float:
    """The score of a text; 0 for one without words."""
    logarithm = 0.0
    words = marks = 0
    seen: Counter[str] = Counter()
    for paragraph in paragraphs(text):
        count = len(_WORD.findall(paragraph))
        if count:
            parts = sentences(paragraph)
            seen.update(part.strip() for part in parts)
            logarithm += count * math.log(paragraph_score(paragraph, parts))
            words += count
            marks += len(_PUNCTUATION.findall(paragraph))
    if not words:
        return 0.0
    total = sum(seen.values())
    unique = math.sqrt(len(seen) / total) if total > 1 else 1.0
    missing = max(0.0, 1.0 - marks / words / _LEAST_PUNCTUATION)
    return float(math.exp(logarithm / words) * unique * _NO_PUNCTUATION**missing)


def paragraph_score(paragraph: str, parts: list[str]) -> float:
    """The score of a line of text, made of the sentences ``parts``; above 0."""
    words = _WORD.findall(paragraph)
    score = 0.999 ** max(0, len(words) - _MOST_PARAGRAPH_WORDS)
    plain = _LIST_MARK.sub("", paragraph)
    if any(plain.count(opening) != plain.count(closing) for opening, closing in _PAIRS):
        score *= 0.7
    if all(word.isdigit() for word in words):
        score *= 0.25
    if parts:
        score *= math.exp(sum(math.log(sentence_score(part)) for part in parts) / len(parts))
    return max(score, 1e-9)


def sentence_score(sentence: str) -> float:
    """The score of a sentence; above 0."""
    stripped = sentence.strip()
    start = first_letter(stripped)
    score = 1.0
    if not start or start.islower():
        score *= 0.6
    if stripped[-1:] not in CLOSING:
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
