"""A document's quality score in [0, 1], after CURATE, and removing those with a low one.

The score is made of soft penalties for what does not look like prose. They multiply within a sentence, a paragraph and
the document. The geometric mean carries scores from sentences to their paragraph and, weighted by words, from
paragraphs to the document. Published (the pipeline of "A CURATEd CATalog", LREC-COLING 2024) are: a sentence without a
first letter or a last mark 0.6 each, words beyond 30 0.97 each, words missing to 3 0.95 each; shares of characters that
are neither letters nor digits, or of one character, above 0.2; in a paragraph, unbalanced parentheses 0.7, nothing but
numbers 0.25, words beyond 200 0.999 each; and in the document, the ratio of sentences that are not repeated, and fewer
than one of ``! , . : ; ?`` in 20 words, down to 0.4 for none.

Not as published: how shares and repetition are scored, the weights, and where paragraphs and sentences end are this
module's. Words per document and per sentence are not scored a second time for the whole document: the published
pipeline interpolates between points that are not published. Marks of a list, as in "a) this and b) that", are no
parentheses.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.curation.curation_filter import CurationFilter, Section
from salamandra_data.languages import NOT_PROSE

if TYPE_CHECKING:
    from datatrove.data import Document

SCORE_BINS = 20
_ROW_INCHES = 0.24

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


class ScoreOptions(Options):
    """Whether there is a score, and which documents it keeps."""

    min_score: Annotated[
        Annotated[float, Field(ge=0, le=1)], Option("least quality score, in [0, 1]", metavar="S")
    ] = 0.8
    score: Annotated[bool, Option("neither score nor remove by score", flag="--no-score")] = True


class ScoreFilter(CurationFilter):
    """Keeps prose of a high score, and counts scores by language."""

    name: ClassVar[str] = "score"
    explanation: ClassVar[str] = "low quality score"
    Options = ScoreOptions
    report_key: ClassVar[str | None] = "score_histogram"

    def __init__(self, options: ScoreOptions) -> None:
        super().__init__(options)
        self._histogram: dict[str, list[int]] = {}

    @classmethod
    def is_wanted(cls, options: ScoreOptions) -> bool:
        """Unless it was switched off."""
        return options.score

    def examine(self, document: Document) -> str | None:
        """Why a document is removed: its score, which is written beside one that stays."""
        language = document.metadata["language"]
        if language in NOT_PROSE:
            return None
        score = document_score(document.text)
        bins = self._histogram.setdefault(language, [0] * SCORE_BINS)
        bins[min(int(score * SCORE_BINS), SCORE_BINS - 1)] += 1
        document.metadata["quality_score"] = score
        return None if score >= self.options.min_score else f"score {score:.3f}"

    def findings(self) -> dict[str, list[int]]:
        """Documents by language and bin of [0, 1]."""
        return self._histogram

    @classmethod
    def sections(cls, findings: Any, settings: Mapping[str, Any]) -> Sequence[Section]:
        """Shares of scores by language, darker for more documents."""
        from salamandra_data.figures import figure, without_frame

        if not findings:
            return ()
        least = settings["min_score"]
        drawing, axes = figure(10, 1.0 + _ROW_INCHES * len(findings))
        rows = [[100 * count / max(1, sum(bins)) for count in bins] for bins in findings.values()]
        image = axes.imshow(rows, aspect="auto", cmap="Blues", extent=(0, 1, len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(findings)), list(findings))
        axes.set_xlabel(f"quality score; removed left of the line, below {least:g}")
        axes.axvline(least, color="#e45756")
        without_frame(axes)
        drawing.colorbar(image, ax=axes, fraction=0.02, pad=0.02, label="% of the language's documents")
        return [Section("Quality scores", plots=[drawing])]


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
    pairs = list(itertools.pairwise(block))
    unfinished = [
        _LEAST_WRAPPED <= len(line) <= _MOST_WRAPPED and line[-1] not in CLOSING for line, _ in pairs
    ]
    width = max(map(len, block))
    full = sum(
        is_unfinished and len(line) + 1 + len(following.split(None, 1)[0]) > width
        for (line, following), is_unfinished in zip(pairs, unfinished, strict=True)
    )
    filled = sum(unfinished) >= _LEAST_LINES and full >= _MOST_FULL * sum(unfinished)
    joined = [block[0]]
    for (_, following), is_unfinished in zip(pairs, unfinished, strict=True):
        if is_unfinished and (filled or following[0].islower()):
            joined.append(following)
        else:
            yield " ".join(joined)
            joined = [following]
    yield " ".join(joined)
