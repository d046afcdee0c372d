"""Reading gettext catalogues: ``.po`` (text, in the order of the program) and ``.mo`` (binary, sorted)."""

from __future__ import annotations

import ast
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from megatron_salamandra.foundation.errors import UserError

_MO_MAGIC = 0x950412DE
_CONTEXT_SEPARATOR = b"\x04"
_PLURAL_SEPARATOR = b"\0"


class CatalogueError(UserError):
    """A catalogue that is damaged or in an encoding other than UTF-8."""


@dataclass
class Message:
    """One entry of a catalogue.

    Attributes:
        originals: the English singular and, where there is one, the plural.
        translations: the non-empty translations, one per plural form.
    """

    originals: list[str] = field(default_factory=list)
    translations: list[str] = field(default_factory=list)


def read_po(data: bytes) -> Iterator[Message]:
    """Yield the translated messages of a ``.po`` file in file order; fuzzy and obsolete entries are left out.

    Raises:
        CatalogueError: not UTF-8, or a line that does not belong in the format.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CatalogueError(f"not UTF-8: {error}") from error
    strings: dict[str, str] = {}
    keyword, fuzzy = "", False
    for number, raw in enumerate([*lines, ""], start=1):
        line = raw.strip()
        first = line[:1]
        if first == '"':
            if not keyword:
                raise CatalogueError(f"line {number}: a string without a keyword: {line[:60]!r}")
            strings[keyword] += _unquote(line, number)
            continue
        if keyword.startswith("msgstr") and not line.startswith("msgstr"):
            if message := _message(strings, fuzzy):
                yield message
            strings, keyword, fuzzy = {}, "", False
        if first == "#":
            fuzzy = fuzzy or (line.startswith("#,") and "fuzzy" in line)
        elif line:
            keyword, _, literal = line.partition(" ")
            if not keyword.startswith("msg"):
                raise CatalogueError(f"line {number}: neither keyword nor string: {line[:60]!r}")
            strings[keyword] = _unquote(literal.strip(), number)


def read_mo(data: bytes) -> Iterator[Message]:
    """Yield the translated messages of a ``.mo`` file.

    Raises:
        CatalogueError: wrong magic number, truncated, or not UTF-8.
    """
    try:
        order = "<" if struct.unpack_from("<I", data)[0] == _MO_MAGIC else ">"
        magic, _, count, originals, translations = struct.unpack_from(order + "5I", data)
        if magic != _MO_MAGIC:
            raise CatalogueError("not a .mo file: wrong magic number")
        for index in range(count):
            length, start = struct.unpack_from(order + "2I", data, originals + 8 * index)
            original = data[start : start + length].rpartition(_CONTEXT_SEPARATOR)[2]
            length, start = struct.unpack_from(order + "2I", data, translations + 8 * index)
            translation = data[start : start + length]
            if original and translation:
                yield Message(_split(original), [text for text in _split(translation) if text])
    except (struct.error, UnicodeDecodeError) as error:
        raise CatalogueError(f"damaged .mo file: {error}") from error


def _split(data: bytes) -> list[str]:
    return [part.decode("utf-8") for part in data.split(_PLURAL_SEPARATOR)]


def _unquote(literal: str, number: int) -> str:
    if "\\" not in literal and len(literal) >= 2 and literal.endswith('"') and '"' not in literal[1:-1]:
        return literal[1:-1]
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError) as error:
        raise CatalogueError(f"line {number}: bad string {literal[:60]!r}") from error
    if not isinstance(value, str):
        raise CatalogueError(f"line {number}: not a string {literal[:60]!r}")
    return value


def _message(strings: dict[str, str], fuzzy: bool) -> Message | None:
    """The message of one entry, or None for the header and for entries that are fuzzy or not translated."""
    if fuzzy or not strings.get("msgid"):
        return None
    translations = [text for key, text in strings.items() if text and key.startswith("msgstr")]
    originals = [text for key in ("msgid", "msgid_plural") if (text := strings.get(key))]
    return Message(originals, translations) if translations else None
