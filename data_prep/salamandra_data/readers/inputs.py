"""Which input files a list of paths, patterns and URLs means."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers.formats import ENDINGS, format_of
from salamandra_data.storage import Location, RemotePath, as_location, is_hidden_below
from salamandra_data.storage.retries import with_retries


def find_inputs(entries: Sequence[Location | str]) -> list[Location]:
    """The files that ``entries`` mean: files, directories (searched whole, sorted) and glob patterns (sorted).

    Each may be an fsspec URL, such as ``s3://bucket/text`` or ``https://host/ca.jsonl.gz``.

    Raises:
        DataError: an entry does not exist, a pattern or directory yields nothing, a file's format is not
            known by its name, a file is reached twice, or the package for a URL is not installed.
    """
    found: list[Location] = []
    for entry in entries:
        found += _files_of(as_location(entry))
    seen: dict[Location, Location] = {}
    for path in found:
        if format_of(path.name) is None:
            raise DataError(f"{path}: its name does not tell a known format; known are {ENDINGS}")
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise DataError(f"{path}: is listed twice (also as {other}); its documents would be doubled")
    return found


def _files_of(entry: Location) -> Sequence[Location]:
    # A file first: to ask a web server for a directory would fetch the page.
    if entry.is_file():
        return [entry]
    if matches := _matches(entry):
        return matches
    if entry.is_dir():
        inside = sorted(path for path in _all_below(entry) if _belongs(path, entry))
        if not inside:
            raise DataError(f"{entry}: no input file in this directory; looked for {ENDINGS}")
        return inside
    raise DataError(f"{entry}: no such file or directory, and no pattern that matches one")


def _matches(entry: Location) -> list[Location]:
    if not glob.has_magic(str(entry)):
        return []
    if isinstance(entry, RemotePath):
        system, url = entry.filesystem(), entry.url
        found = with_retries(url, lambda: system.glob(url))
        return [RemotePath(system.unstrip_protocol(path)) for path in sorted(found) if system.isfile(path)]
    return [
        path for match in sorted(glob.glob(str(entry), recursive=True)) if (path := Path(match)).is_file()
    ]


def _all_below(directory: Location) -> Iterable[Location]:
    if isinstance(directory, RemotePath):
        return directory.rglob("*")
    return (path for path in directory.rglob("*") if path.is_file())


def _belongs(path: Location, directory: Location) -> bool:
    """Whether a file found in a directory is input: not hidden, and not a lone .json, which is seldom documents."""
    known = format_of(path.name) is not None and path.suffix != ".json"
    return known and not is_hidden_below(path, directory)
