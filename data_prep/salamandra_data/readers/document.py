"""One document of the input, or the reason why there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import orjson

from salamandra_data.errors import DataError

BATCH_BYTES = 1 << 20
"""About how much text is handed on at once."""

_SHOWN_CHARACTERS = 80

_LANGUAGE_CHARACTERS = 64
_LANGUAGE = re.compile(rf"[A-Za-z0-9_-]{{1,{_LANGUAGE_CHARACTERS}}}")


@dataclass(slots=True)  # not frozen, which makes creating one three times as slow
class Document:
    """A text with what the input says about it. ``line`` counts from 1; it is the row in Parquet and Arrow files."""

    line: int
    text: bytes
    """UTF-8, valid."""
    language: str
    source: str | None = None
    licence: str | None = None
    string: str = field(default="", compare=False)
    """The text once more, as it was before it became UTF-8."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is not a document, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class DocumentKeys:
    """Which keys of a record hold what. A fixed ``language`` wins over the key."""

    text: str = "text"
    language: str | None = None
    language_key: str = "language"

    @cached_property
    def quoted_text(self) -> bytes:
        """The key of the text as JSON writes it."""
        return orjson.dumps(self.text)

    def check(self) -> None:
        """Refuse a fixed language that could not be part of a file name.

        Raises:
            DataError: naming the option and its value.
        """
        if self.language is not None and not check_language_name(self.language):
            raise DataError(
                f"--language {self.language!r}: letters, digits, - and _ only, as in ca or sr_Latn"
            )

    def document(self, line: int, values: Any) -> Document | Malformed:
        """The document in one record, or why it is malformed. Source and licence are taken when they are text."""
        # Asking for the very class first: asking an abstract one costs more than reading the line.
        if type(values) is not dict and not isinstance(values, Mapping):
            return Malformed(line, f"a JSON object is expected, this is {_kind(values)}")
        text = values.get(self.text)
        if not isinstance(text, str):
            if self.text not in values:
                return Malformed(
                    line,
                    f"key {self.text!r} is missing; found {some_names(values)}"
                    f"{self._where_else(values)}; --text-key names the key of the text",
                )
            return Malformed(line, f"{self.text!r} is {_kind(text)}, expected text")
        language = self.language
        if language is None:
            if self.language_key not in values:
                return Malformed(
                    line,
                    f"key {self.language_key!r} is missing, and no language was given; --language-key names another "
                    "key, --language the language of all documents",
                )
            language = values[self.language_key]
            if not isinstance(language, str):
                return Malformed(line, f"{self.language_key!r} is {_kind(language)}, expected text")
            # Its length first: the check keeps what it was asked about.
            if len(language) > _LANGUAGE_CHARACTERS or not check_language_name(language):
                return Malformed(
                    line,
                    f"{self.language_key!r} = {_shown(language)} is not a name such as 'ca' or 'sr_Latn'",
                )
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            return Malformed(
                line, f"character {error.start} of {self.text!r} is a lone surrogate (U+{code:04X})"
            )
        # Without a call for each: it is done for every line.
        source, licence = values.get("source"), values.get("licence")
        if not (isinstance(licence, str) and licence and licence.isprintable()):
            licence = values.get("license")
            if not (isinstance(licence, str) and licence and licence.isprintable()):
                licence = None
        if not (isinstance(source, str) and source and source.isprintable()):
            source = None
        return Document(line, raw, language, source, licence, text)

    def _where_else(self, values: Mapping[str, Any]) -> str:
        inner = [name for name, value in values.items() if isinstance(value, Mapping) and self.text in value]
        return f" ({self.text!r} is inside {some_names(inner)}, where it is not looked for)" if inner else ""


@lru_cache(maxsize=1024)
def check_language_name(language: str) -> bool:
    """Whether ``language`` may be part of a file name: letters, digits, ``-`` and ``_``."""
    return _LANGUAGE.fullmatch(language) is not None


def parse_json_line(line: int, raw: bytes, keys: DocumentKeys) -> Document | Malformed:
    """The document in one line of JSON.

    Lines that only the standard library accepts (``NaN``, lone surrogates in other keys) are accepted too. A line in
    which a key is there twice is malformed: parsers keep one of the values and drop the other without a word.
    """
    try:
        values = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            values = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_object)
        except _DoubledKeyError as error:
            return Malformed(line, str(error))
        except UnicodeDecodeError as error:
            return Malformed(line, f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}")
        except json.JSONDecodeError as error:
            return Malformed(line, f"not JSON: {error.msg} at column {error.colno}")
        except (RecursionError, ValueError) as error:
            return Malformed(line, f"not JSON that can be read: {error}")
        return keys.document(line, values)
    document = keys.document(line, values)
    if type(values) is dict and _may_double_a_key(raw, values, keys.quoted_text):
        try:
            json.loads(raw, object_pairs_hook=_object)
        except _DoubledKeyError as error:
            return Malformed(line, str(error))
        except (RecursionError, ValueError):  # which the faster parser reads: numbers of many digits
            pass
    return document


class _DoubledKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise _DoubledKeyError(
            f"key {_shown(doubled)} is there {names.count(doubled)} times; keep one of them"
        )
    return values


_LONG_LINE_BYTES = 1024
_MOST_QUOTES = 3
_KEY_ENDS = (b'":', b" :", b"\t:", b"\r:")


def _may_double_a_key(raw: bytes, values: dict[str, Any], quoted_text: bytes) -> bool:
    """Whether a record could have more keys than its parser gave; seldom True, and False only if it has not.

    Each key has a colon, behind its quote or behind white space: where there are as many of these as keys, none was
    dropped. Long lines are
    text mostly, which is passed over by its quotes; looking at all of it would cost as much as parsing it.
    """
    ends = _text_ends(raw, quoted_text) if len(raw) > _LONG_LINE_BYTES else None
    start, end = ends or (0, 0)
    colons = raw.count(b":", 0, start) + raw.count(b":", end)  # one byte is found much faster than two
    if colons == len(values):
        return False
    marks = 0
    for mark in _KEY_ENDS:
        if mark[:1] in b'" ' or mark[:1] in raw:
            marks += raw.count(mark, 0, start) + raw.count(mark, end)
    return marks != len(values) and marks != _keys_in(values)


def _text_ends(raw: bytes, quoted_text: bytes) -> tuple[int, int] | None:
    """Where the string of the first ``quoted_text`` key begins and ends; None if that takes long to find out."""
    key = raw.find(quoted_text)
    if key < 0:
        return None
    after = key + len(quoted_text)
    start = raw.find(b'"', after)
    if raw[after:start].strip() != b":":
        return None
    end = start
    for _ in range(_MOST_QUOTES):
        end = raw.find(b'"', end + 1)
        if raw[end - 1] != 0x5C:
            return start, end
        before = raw[start + 1 : end]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return start, end
    return None


def _keys_in(value: dict[str, Any]) -> int:
    """Keys of an object and of all within it, however deep."""
    keys, within = 0, list[Any]([value])
    while within:
        one = within.pop()
        if type(one) is dict:
            keys += len(one)
            one = one.values()
        within += [inner for inner in one if type(inner) is dict or type(inner) is list]
    return keys


def json_document_filter(first: bytes, second: bytes | None = None) -> str | None:
    """What ``jq`` is to take out of a file that is one JSON document, to make it JSON lines; None if it is not.

    Args:
        first: the first line with content.
        second: the next one; None if there is no other.
    """
    start = first.removeprefix(b"\xef\xbb\xbf").strip()
    is_list = start.startswith(b"[")
    if not is_list and not start.startswith(b"{"):
        return None
    if _is_json(start):
        holds_records = is_list and any(isinstance(record, dict) for record in orjson.loads(start))
        return ".[]" if holds_records and second is None else None
    if second is None or not _continues(start):
        return None
    if is_list:  # never a record, so that nothing is lost
        return ".[]"
    return "." if start == b"{" or not _is_json(second) else None


def is_joined_by_commas(first: bytes, second: bytes | None = None) -> bool:
    """Whether a file holds JSON objects with commas between them, the way that they stand in a list.

    A comma too many in the first line alone does not make it one.

    Args:
        first: the first line with content.
        second: the next one; None if there is no other.
    """
    text = first.removeprefix(b"\xef\xbb\xbf").strip().decode(errors="replace")
    if not text.startswith("{"):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (RecursionError, ValueError):
        return False
    rest = text[end:].lstrip()
    if not rest.startswith(","):
        return False
    next_object = rest[1:].lstrip() or (second or b"").strip().decode(errors="replace")
    return next_object.startswith("{") and (second is None or not _is_json(second))


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True


def _continues(raw: bytes) -> bool:
    """Whether ``raw`` is JSON up to its end, and not finished."""
    text = raw.decode(errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) - 1 and error.msg != "Extra data"
    except (RecursionError, ValueError):
        return False
    return False


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        bytes: "bytes",
        list: "a list",
    }
    return names.get(type(value), "an object")


def some_names(names: Iterable[str]) -> str:
    """The first of ``names``, each and all of them short enough for a message."""
    names = list(names)
    shown = ", ".join(map(_shown, names[:8]))
    return f"{shown} ..." if len(names) > 8 else shown or "none"


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "...")
