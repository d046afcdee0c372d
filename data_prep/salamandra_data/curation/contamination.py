"""Words in a row that a document shares with a benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import xxhash

from salamandra_data.errors import DataError

_WORD = re.compile(r"\w+")


class NgramIndex:
    """The n-grams of some task files.

    Args:
        files: JSON lines, of which every string counts, or plain text.
        words: of an n-gram. A task's text that is shorter is not looked for.
    Raises:
        DataError: a file cannot be read, or none has as many words in a row.
    """

    def __init__(self, files: Sequence[Path], words: int) -> None:
        self._words = words
        self._found: set[int] = set()
        self._starts: set[str] = set()
        for path in files:
            for text in _texts(path):
                tokens = _tokens(text)
                for start in range(len(tokens) - words + 1):
                    self._found.add(_hashed(tokens[start : start + words]))
                    self._starts.add(tokens[start])
        if files and not self._found:
            raise DataError(f"--decontaminate: no text of {words} words in {files[0]} and the others")

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


def _tokens(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _hashed(tokens: list[str]) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(tokens).encode())


def _texts(path: Path) -> Iterator[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"--decontaminate {path}: {error.strerror}") from error
    if path.suffix not in (".jsonl", ".ndjson", ".json"):
        yield content.decode(errors="replace")
        return
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                yield " ".join(_strings(orjson.loads(line)))
            except orjson.JSONDecodeError as error:
                raise DataError(f"--decontaminate {path}:{number}: not JSON: {error}") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
