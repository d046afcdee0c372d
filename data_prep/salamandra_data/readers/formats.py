"""Which formats there are, known by the ending of a name, in capitals or not."""

from __future__ import annotations

from pathlib import PurePosixPath

COMPRESSIONS = (".gz", ".zst")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PLAIN_TEXT = ".txt"
PARQUET = ".parquet"
ARROW = (".arrow", ".feather")
ENDINGS = "*.jsonl, *.ndjson, *.json, *.txt (each also .gz or .zst), *.parquet, *.arrow and *.feather"
"""Of files that are named one by one, or by a pattern."""
ENDINGS_IN_DIRECTORIES = ENDINGS.replace(" *.json,", "")
"""Of what is taken from a directory: seldom does a lone .json hold documents."""


def format_of(name: str) -> str | None:
    """The ending that tells the format, below one of compression; None if it is not known."""
    path = PurePosixPath(name.lower())
    if path.suffix == PARQUET or path.suffix in ARROW:
        return path.suffix
    inner = PurePosixPath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    return inner if inner in JSON_LINES or inner == PLAIN_TEXT else None


def compression_of(name: str) -> str | None:
    """The ending that tells the compression; None if there is none that is known."""
    ending = PurePosixPath(name.lower()).suffix
    return ending if ending in COMPRESSIONS else None


def is_input_in_directory(name: str) -> bool:
    """Whether a file of this name is taken from a directory; see :data:`ENDINGS_IN_DIRECTORIES`."""
    return format_of(name) is not None and not name.lower().endswith(".json")
