"""Options that several data commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_salamandra.cli._command import Subparsers

if TYPE_CHECKING:
    from salamandra_data.readers import DocumentKeys
    from salamandra_data.storage import Location


def add_command(
    commands: Subparsers,
    name: str,
    handler: Callable[[argparse.Namespace], int],
    *,
    text: str,
    description: str,
) -> argparse.ArgumentParser:
    """A parser for one command, whose ``handler`` turns the parsed arguments into an exit code."""
    parser = commands.add_parser(name, help=text, description=description)
    parser.set_defaults(handler=handler)
    return parser


def add_input_options(parser: argparse.ArgumentParser, *, seed: bool = True) -> None:
    """The input files, the keys of their records, what malformed lines do, and, where asked, the seed."""
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="files, directories or patterns: JSON lines (.jsonl, .ndjson, .json), plain text (.txt, one document "
        "per file), each also .gz or .zst, .parquet and .arrow; or fsspec URLs of these",
    )
    parser.add_argument("--text-key", default="text", metavar="KEY", help="key of the text (default: text)")
    parser.add_argument("--language", metavar="XX", help="language of every document; wins over the key")
    parser.add_argument(
        "--language-key",
        default="language",
        metavar="KEY",
        help="key of a document's language (default: language)",
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="a malformed line ends the command (default), or is counted and passed over",
    )
    if seed:
        parser.add_argument(
            "--seed", type=int, default=0, metavar="N", help="decides every random choice (default: 0)"
        )


def add_reshard_options(parser: argparse.ArgumentParser) -> None:
    """Where new shards go, and which tokenizer the old ones are of."""
    parser.add_argument(
        "--out", type=place_to_write, required=True, metavar="DIR", help="directory for the new shards"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="MODEL",
        help="the shards' tokenizer (default: tokenizer.model beside the first of them)",
    )


def document_keys(arguments: argparse.Namespace) -> DocumentKeys:
    """Which keys hold what, from the options of :func:`add_input_options`."""
    from salamandra_data.readers import DocumentKeys

    return DocumentKeys(arguments.text_key, arguments.language, arguments.language_key)


def location(text: str) -> Location:
    """Type of options that take a path or an fsspec URL."""
    from salamandra_data.storage import as_location

    return as_location(text)


def place_to_write(text: str) -> Path:
    """Type of options that name a file or directory to write, which is never behind a URL."""
    place = location(text)
    if not isinstance(place, Path):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a URL, and output goes to disk: name a directory or file there, and copy it afterwards"
        )
    return place


def at_least_one(text: str) -> int:
    """Type of options that count something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)
