"""Paragraphs and sentences of text in any of the languages, by marks and capitals."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

OPENING = "\"'«‹“”‘„‚([{¿¡—–-*•·"
"""What may stand before the first letter of a sentence."""

CLOSING = ".!?…:;\"'»›”“’)]}。\u037e"
"""What may be the last character of a sentence."""

# A full stop after a single letter is an abbreviation's or an initial's. A semicolon asks in Greek only.
_END = re.compile(
    r"(?:(?<=\w\w\.)|(?<=[^\w\s]\.)|(?<=[!?…\u037e])|(?<=[\u0370-\u03ff\u1f00-\u1fff];))[\"'»›”“’)\]]*\s+(?=\S)"
)
_START = re.compile(rf"[{re.escape(OPENING)}\s]*(?:['’‘]\w\s+)?(?P<first>\w)")  # Dutch: 's Avonds
_LEAST_WRAPPED = 40  # characters of a line that is broken for its length
_MOST_WRAPPED = 120
_LEAST_LINES = 3
_MOST_FULL = 0.9


def paragraphs(text: str) -> Iterator[str]:
    """The lines of a text, of which those that were broken for their length are put together again.

    A line was if it has 40 to 120 characters and no last mark, and either the next begins in lower case, or the lines
    of its block, which blank lines bound, are filled: at least three such lines, and behind nine of ten the first word
    of the next would not have fitted in the longest line.
    """
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            block.append(line.strip())
        elif block:
            yield from _unwrapped(block)
            block = []


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph: parts that end in a mark, before a letter that is not in lower case."""
    found: list[str] = []
    done = 0
    for end in _END.finditer(paragraph):
        start = _START.match(paragraph, end.end())
        if start is not None and start["first"].isalpha() and not start["first"].islower():
            found.append(paragraph[done : end.start()] + end[0].rstrip())
            done = end.end()
    found.append(paragraph[done:])
    return [sentence for sentence in found if sentence.strip()]


def first_letter(sentence: str) -> str:
    """The first letter or digit of a sentence, behind what may open it; empty if something else comes first."""
    start = _START.match(sentence)
    return "" if start is None else start["first"]


def _unwrapped(block: list[str]) -> Iterator[str]:
    unfinished = [
        (line, following)
        for line, following in itertools.pairwise(block)
        if _LEAST_WRAPPED <= len(line) <= _MOST_WRAPPED and line[-1] not in CLOSING
    ]
    width = max(map(len, block))
    full = sum(len(line) + 1 + len(following.split(None, 1)[0]) > width for line, following in unfinished)
    filled = len(unfinished) >= _LEAST_LINES and full >= _MOST_FULL * len(unfinished)
    joined = block[0]
    for line, following in itertools.pairwise(block):
        if (line, following) in unfinished and (filled or following[0].islower()):
            joined += " " + following
        else:
            yield joined
            joined = following
    yield joined
