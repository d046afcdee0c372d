"""JSON files and files of JSON lines, which survive a writer that died in the middle of a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.errors import UserError


class JsonError(UserError):
    """A file is not readable as JSON, or not of the expected form."""


def read_json_object(path: Path, *, error_class: type[UserError] = JsonError) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        error_class: what is raised, so that a room's callers see the room's own errors.
    Raises:
        error_class: the file cannot be read, is not JSON, or holds something else.
    """
    try:
        contents = json.loads(path.read_bytes())
    except OSError as error:
        raise error_class(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise error_class(f"{path}: not JSON: {error}") from error
    if not isinstance(contents, dict):
        raise error_class(f"{path}: holds {type(contents).__name__} where an object is expected")
    return contents


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Replace ``path`` by an object, one key a line, in one step.

    Raises:
        WriteError: the system refused.
    """
    atomic_write_bytes(path, (json.dumps(contents, indent=1, ensure_ascii=False) + "\n").encode())


def append_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append one line for each record, all in one write.

    A line that an earlier writer left without its end is closed first, so that it cannot spoil the next one.

    Raises:
        OSError: the system refused; the caller decides whether that matters.
    """
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    with path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                lines = b"\n" + lines
        stream.write(lines)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines, in order; none if there is no such file.

    What is not an object is passed over: a line cut short by the death of its writer.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        yield from parse_json_lines(stream)


def parse_json_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects in lines of JSON, in order; what is not an object is passed over."""
    for line in lines:
        try:
            record = orjson.loads(line)
        except ValueError:
            try:
                record = json.loads(line)  # which knows NaN, infinities and whole numbers of any length
            except (ValueError, RecursionError):
                continue
        if isinstance(record, dict):
            yield record


def number_in(value: object) -> float | None:
    """The number that a JSON value is; None if it is something else, a truth value, or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def whole_in(value: object) -> int | None:
    """The whole number that a JSON value is; None if it is something else, a truth value, or beyond 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(1 << 63) <= value < 1 << 63 else None
