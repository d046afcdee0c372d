"""Turning short strings into documents, and writing documents by language."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from megatron_salamandra.foundation.atomic_files import publish

Package = TypeVar("Package")

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->")
_PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z]|\{[^{}]*\}|&\w+;")
_SPACE = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n\s*\n+")
_LETTER = re.compile(r"[^\W\d_]")

_MIN_LETTERS = 3
_MIN_LETTER_SHARE = 0.5


@dataclass(frozen=True)
class Document:
    """One document of the corpus: its text, and where it came from under which licence."""

    text: str
    language: str
    source: str
    licence: str
    id: str

    def to_json(self) -> str:
        """One JSON line, text first, without the line end."""
        return json.dumps(self.__dict__, ensure_ascii=False)


def clean(text: str) -> str:
    """``text`` in NFC, without markup, with single spaces; empty if it is not language (format strings, numbers)."""
    text = html.unescape(_TAG.sub("", text))
    text = unicodedata.normalize("NFC", text.replace("\r", "").replace("\0", ""))
    text = _BLANK_LINES.sub("\n", _SPACE.sub(" ", text)).strip()
    without_slots = _PLACEHOLDER.sub("", text)
    letters = len(_LETTER.findall(without_slots))
    if letters < _MIN_LETTERS or letters < _MIN_LETTER_SHARE * len(text.replace(" ", "")):
        return ""
    return text


def group(strings: Iterable[str], *, target_chars: int = 1500, least_chars: int = 200) -> Iterator[str]:
    """Join consecutive strings, one per line, into texts of about ``target_chars`` characters.

    The rest is added to the last text when it is shorter than ``least_chars``, and stands alone when there is no
    other. A string longer than the target is a text of its own.
    """
    texts: list[list[str]] = []
    size = target_chars
    for string in strings:
        if size + len(string) > target_chars:
            texts.append([])
            size = 0
        texts[-1].append(string)
        size += len(string) + 1
    if len(texts) > 1 and sum(map(len, texts[-1])) < least_chars:
        texts[-2].extend(texts.pop())
    for lines in texts:
        yield "\n".join(lines)


class CorpusWriter:
    """Writes documents to one JSONL file per language, dropping exact repetitions.

    A context manager: the files get their names together in :meth:`finish`; leaving the block without it removes
    what was written. Memory holds 16 bytes and some overhead per string seen, not the text.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._streams: dict[str, BinaryIO] = {}
        self._counts: dict[str, dict[str, int | str]] = {}
        self._digests: dict[str, hashlib._Hash] = {}
        self._seen: set[bytes] = set()

    def __enter__(self) -> CorpusWriter:
        self._directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for language, stream in self._streams.items():
            stream.close()
            self._partial(language).unlink(missing_ok=True)

    @property
    def languages(self) -> list[str]:
        """The languages that have a document, sorted."""
        return sorted(self._streams)

    @property
    def utf8_bytes(self) -> int:
        """Text written so far."""
        return sum(int(counts["utf8_bytes"]) for counts in self._counts.values())

    def has(self, language: str, text: str) -> bool:
        """Whether this string or document was seen in this language."""
        return _key(language, text) in self._seen

    def is_new(self, language: str, text: str) -> bool:
        """True the first time this string is seen in this language."""
        key = _key(language, text)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def add(self, document: Document) -> None:
        """Keep a document unless its text was added already."""
        if not self.is_new(f"{document.language} document", document.text):
            return
        language = document.language
        if language not in self._streams:
            self._streams[language] = self._partial(language).open("wb")
            self._counts[language] = {"documents": 0, "utf8_bytes": 0}
            self._digests[language] = hashlib.sha256()
        line = document.to_json().encode() + b"\n"
        self._streams[language].write(line)
        self._digests[language].update(line)
        counts = self._counts[language]
        counts["documents"] = int(counts["documents"]) + 1
        counts["utf8_bytes"] = int(counts["utf8_bytes"]) + len(document.text.encode())

    def finish(self) -> dict[str, dict[str, int | str]]:
        """Give the files ``LANGUAGE.jsonl`` their names.

        Returns:
            Per language: ``documents``, ``utf8_bytes`` (of text) and ``sha256`` (of the file).
        """
        for language, stream in self._streams.items():
            stream.flush()
            os.fsync(stream.fileno())
            publish(self._partial(language), self._directory / f"{language}.jsonl")
            self._counts[language]["sha256"] = self._digests[language].hexdigest()
        return {language: self._counts[language] for language in sorted(self._counts)}

    def _partial(self, language: str) -> Path:
        return self._directory / f".{language}.jsonl.partial-{os.getpid()}"


def packages_in_turn(
    packages: Sequence[Package],
    name: Callable[[Package], str],
    writer: CorpusWriter,
    report: Callable[[str], None],
) -> Iterator[Package]:
    """The packages, each reported with the text so far, its rate, and the time left if the others are alike."""
    started = time.monotonic()
    for number, package in enumerate(packages):
        seconds = time.monotonic() - started
        line = f"[{number + 1}/{len(packages)}] {name(package)}"
        if number:
            left = seconds / number * (len(packages) - number)
            megabytes = writer.utf8_bytes / 1e6
            line += f"   {megabytes:.1f} MB of text so far, {megabytes / seconds:.2f} MB/s, about {left:.0f} s left"
        report(line)
        yield package


def _key(language: str, text: str) -> bytes:
    return hashlib.blake2b(f"{language}\0{text}".encode(), digest_size=16).digest()
