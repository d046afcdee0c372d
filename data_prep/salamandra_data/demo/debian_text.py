"""Text out of the files of Debian packages: message tables, help pages, books and manual pages."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

from salamandra_data.demo.catalogue import CatalogueError, read_mo
from salamandra_data.languages import language_of_locale

_BLOCK = "p div h1 h2 h3 h4 h5 h6 li td th dt dd title pre section body html tr table ul ol item"
_NO_PROSE = "script style header footer aside nav pre code screen info head"
_VOID = "img br hr meta link input base col"
_BLOCK_TAGS = frozenset(_BLOCK.split())
_NO_PROSE_TAGS = frozenset(_NO_PROSE.split())
_VOID_TAGS = frozenset(_VOID.split())
_NO_PROSE_CLASSES = ("docnav", "banner", "debug", "dropdowns", "programlisting", "screen")
_ROFF_ESCAPE = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[+-]?\d+|\\[&/,|^:%c]")
_ROFF_BREAKS = frozenset(("PP", "P", "LP", "TP", "IP", "SH", "SS", "nf", "fi", "EX", "EE", "sp", "RS", "RE"))
_ROFF_TEXT_MACROS = frozenset(("B", "I", "BR", "BI", "IR", "RI", "RB", "IB", "SH", "SS", "SM"))
_ROFF_CHARACTERS = {
    r"\-": "-",
    r"\ ": " ",
    r"\~": " ",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(bu": "•",
    r"\(co": "©",
    r"\e": "\\",
}
_WIKI_MARKUP = re.compile(r"\{\{[^{}]*\}\}|\[\[|\]\]|'{2,}")

Extractor = Callable[[bytes], Iterator[str]]


def mediawiki_strings(data: bytes) -> Iterator[str]:
    """The messages of an ``i18n/LANGUAGE.json`` file, in file order."""
    messages = json.loads(data)
    for key, text in messages.items():
        if isinstance(text, str) and not key.startswith("@"):
            yield _WIKI_MARKUP.sub("", text)


def mo_strings(data: bytes) -> Iterator[str]:
    """The translations of a ``.mo`` catalogue that differ from the original."""
    for message in read_mo(data):
        yield from (text for text in message.translations if text not in message.originals)


def page_strings(data: bytes) -> Iterator[str]:
    """The paragraphs of an HTML or Mallard page, without navigation, listings and scripts."""
    parser = _Paragraphs()
    parser.feed(data.decode("utf-8"))
    parser.close()
    parser.end_paragraph()
    yield from parser.paragraphs


def manual_strings(data: bytes) -> Iterator[str]:
    """The paragraphs of a gzipped manual page (man macros); examples set without filling are left out."""
    paragraph: list[str] = []
    filling = True
    for raw in gzip.decompress(data).decode("utf-8").splitlines():
        words = raw[1:].split(None, 1) if raw.startswith((".", "'")) else []
        macro = words[0] if words else ""
        if macro in ("nf", "EX"):
            filling = False
        elif macro in ("fi", "EE"):
            filling = True
        if macro in _ROFF_TEXT_MACROS and len(words) == 2:
            text = words[1].replace('"', "")
            text = text.replace(" ", "") if len(macro) == 2 and macro[0] != "S" else text
        else:
            text = "" if raw.startswith((".", "'")) else raw
        if paragraph and (macro in _ROFF_BREAKS or not raw):
            yield " ".join(paragraph)
            paragraph = []
        if text and filling:
            paragraph.append(_roff(text))
    if paragraph:
        yield " ".join(paragraph)


_RULES: tuple[tuple[re.Pattern[str], Extractor], ...] = (
    (re.compile(r"usr/share/mediawiki/.*/i18n/(?:\w+/)*(?P<locale>[a-z-]+)\.json$"), mediawiki_strings),
    (re.compile(r"usr/share/libreoffice/help/(?P<locale>[\w-]+)/text/.*\.html$"), page_strings),
    (re.compile(r"usr/lib/libreoffice/.*/resource/(?P<locale>[\w@-]+)/LC_MESSAGES/.*\.mo$"), mo_strings),
    (re.compile(r"usr/share/help/(?P<locale>[\w@]+)/.*\.page$"), page_strings),
    (re.compile(r"usr/share/doc/debian-handbook/html/(?P<locale>[\w-]+)/.*\.html$"), page_strings),
    (re.compile(r"usr/share/man/(?:(?P<locale>[\w@]+)/)?man\d/.*\.gz$"), manual_strings),
)
_MEDIAWIKI_LOCALES = {"sh-latn": "sh", "sr-el": "sh", "sr-ec": "sr"}


def rule_for(path: str) -> tuple[str, Extractor] | None:
    """The language and the extractor of a file in a package, or None if the file is of no use.

    Args:
        path: as in the package, without the leading ``./``.
    """
    for pattern, extractor in _RULES:
        if match := pattern.match(path):
            locale = match["locale"] or "en"
            locale = "en" if locale == "C" else _MEDIAWIKI_LOCALES.get(locale, locale)
            language = language_of_locale(locale)
            return (language, extractor) if language else None
    return None


def extract(extractor: Extractor, data: bytes) -> list[str]:
    """All strings of one file; an empty list for a file that is damaged, not UTF-8 or not of its format."""
    try:
        return list(extractor(data))
    except (UnicodeDecodeError, CatalogueError, ValueError, OSError, EOFError):
        return []


def _roff(text: str) -> str:
    text = _ROFF_ESCAPE.sub("", text)
    for escape, character in _ROFF_CHARACTERS.items():
        text = text.replace(escape, character)
    return text.strip()


class _Paragraphs(HTMLParser):
    """Collects the text of block elements; skips elements that are not prose."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self._words: list[str] = []
        self._skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = " ".join(value or "" for name, value in attrs if name in ("class", "id"))
        unwanted = tag in _NO_PROSE_TAGS or any(name in classes for name in _NO_PROSE_CLASSES)
        if self._skipped or (unwanted and tag not in _VOID_TAGS):
            if tag not in _VOID_TAGS:
                self._skipped.append(tag)
        elif tag in _BLOCK_TAGS:
            self.end_paragraph()
        elif tag == "br":
            self._words.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCK_TAGS and not self._skipped:
            self.end_paragraph()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            while self._skipped.pop() != tag:
                pass
        elif tag in _BLOCK_TAGS and not self._skipped:
            self.end_paragraph()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._words.append(data)

    def end_paragraph(self) -> None:
        """Close the paragraph that is being collected."""
        if text := " ".join("".join(self._words).split()):
            self.paragraphs.append(text)
        self._words = []
