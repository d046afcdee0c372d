"""Which input files a list of paths, patterns and URLs means."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from pathlib import Path

from salamandra_data.errors import DataError, DataWarning
from salamandra_data.readers.by_products import found_by_products, warn_of_by_products
from salamandra_data.readers.document import some_names
from salamandra_data.readers.formats import ENDINGS, format_of
from salamandra_data.readers.input_tree import files_below
from salamandra_data.readers.overlap import refuse_overlap
from salamandra_data.storage import Location, RemotePath, as_location
from salamandra_data.storage.retries import with_retries


def find_inputs(entries: Sequence[Location | str], *, out: Path | None = None) -> list[Location]:
    """The files that ``entries`` mean: files, directories (searched whole, sorted) and glob patterns (sorted).

    Each may be an fsspec URL, such as ``s3://bucket/text`` or ``https://host/ca.jsonl.gz``. Warns
    (:class:`DataWarning`) of what a directory or pattern yields besides, by-products of other commands too.

    Args:
        entries: paths, patterns and URLs.
        out: where the command that reads them will write, if what it writes may look like input.
    Raises:
        DataError: an entry does not exist or may not be read, a pattern or directory yields nothing, a file's format
            is not known by its name, a file is reached twice, the package for a URL is not installed, or ``out`` is
            inside the input.
    """
    found: list[Location] = []
    for entry in map(as_location, entries):
        try:
            found += _files_of(entry)
        except PermissionError as error:
            raise DataError(f"{error.filename or entry}: may not be read by this user") from error
    seen: dict[Location, Location] = {}
    for path in found:
        if format_of(path.name) is None:
            raise DataError(f"{path}: its name does not tell a known format; known are {ENDINGS}")
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise DataError(f"{path}: is listed twice (also as {other}); its documents would be doubled")
    if out is not None:
        refuse_overlap(entries, found, out)
    return found


def _files_of(entry: Location) -> Sequence[Location]:
    # A file first: to ask a web server for a directory would fetch the page.
    if entry.is_file():
        return [entry]
    if matches := _matches(entry):
        return matches
    if entry.is_dir():
        return _inside(entry)
    raise DataError(f"{entry}: no such file or directory, and no pattern that matches one")


def _matches(entry: Location) -> list[Location]:
    if not glob.has_magic(str(entry)):
        return []
    if isinstance(entry, RemotePath):
        system, url = entry.filesystem(), entry.url
        found = with_retries(url, lambda: system.glob(url))
        return [RemotePath(system.unstrip_protocol(path)) for path in sorted(found) if system.isfile(path)]
    matches = [Path(match) for match in sorted(glob.glob(str(entry), recursive=True))]
    directories = [path for path in matches if path.is_dir()]
    if directories and "**" not in str(entry):
        _warn(f"{entry}: directories are left out of a pattern without **: {_some(directories)}")
    files = [path for path in matches if path.is_file()]
    if left_out := found_by_products(files, str(entry)):
        warn_of_by_products(entry, [path.name for path in left_out])
    return [path for path in files if path not in set(left_out)]


def _inside(directory: Location) -> list[Location]:
    inside: list[Location] = []
    others: list[Location] = []
    for path in sorted(files_below(directory)):
        # Seldom does a lone .json hold documents.
        is_input = format_of(path.name) is not None and not path.name.lower().endswith(".json")
        (inside if is_input else others).append(path)
    if not inside:
        held = f"; it holds {_some(others)}" if others else ""
        raise DataError(f"{directory}: no input file in this directory{held}; looked for {ENDINGS}")
    if others:
        _warn(
            f"{directory}: {len(others):,} of {len(inside) + len(others):,} files are left out, because of their "
            f"endings: {_some(others)}"
        )
    return inside


def _some(paths: Sequence[Location]) -> str:
    return some_names(path.name for path in paths)


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)
