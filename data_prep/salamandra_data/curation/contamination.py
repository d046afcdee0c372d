"""Words in a row that a document shares with a benchmark."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from salamandra_data.curation.task_files import task_items
from salamandra_data.errors import DataError

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TaskFile:
    """What of a file of tasks is looked for.

    Attributes:
        path: of the file.
        items: how many it has.
        too_short: items of fewer words than an n-gram, which are not looked for.
        ngrams: different ones.
    """

    path: str
    items: int
    too_short: int
    ngrams: int


class NgramIndex:
    """The n-grams of some task files, as words without case and punctuation, and in Unicode's composed form.

    Args:
        files: as :func:`task_items` takes them.
        words: of an n-gram.
    Raises:
        DataError: a file cannot be read, or none of its items has as many words.
    """

    def __init__(self, files: Sequence[Path], words: int) -> None:
        self._words = words
        self._found: set[int] = set()
        self._starts: set[str] = set()
        self.files = [self._add(path) for path in files]

    def __len__(self) -> int:
        """How many different n-grams."""
        return len(self._found)

    def first_in(self, text: str) -> str | None:
        """The first n-gram of a text that is in a task, as lower-case words; None if there is none."""
        tokens = _tokens(text)
        for start in range(len(tokens) - self._words + 1):
            # Most words start no task's n-gram, which saves hashing what follows them.
            if tokens[start] in self._starts:
                ngram = tokens[start : start + self._words]
                if _hashed(ngram) in self._found:
                    return " ".join(ngram)
        return None

    def _add(self, path: Path) -> TaskFile:
        items = too_short = longest = 0
        found: set[int] = set()
        for text in task_items(path):
            tokens = _tokens(text)
            items += 1
            too_short += len(tokens) < self._words
            longest = max(longest, len(tokens))
            for start in range(len(tokens) - self._words + 1):
                found.add(_hashed(tokens[start : start + self._words]))
                self._starts.add(tokens[start])
        if not found:
            raise DataError(
                f"--decontaminate {path}: none of its {items:,} items has {self._words} words, so nothing would be "
                f"looked for\n  its longest has {longest}: take a smaller --ngram, or leave the file away"
            )
        self._found |= found
        return TaskFile(str(path), items, too_short, len(found))


def _tokens(text: str) -> list[str]:
    # Marks that are apart from their letter are no part of a word to `re`, so they are put together.
    return _WORD.findall(unicodedata.normalize("NFC", text.casefold()))


def _hashed(tokens: list[str]) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(tokens).encode(errors="surrogatepass"))
