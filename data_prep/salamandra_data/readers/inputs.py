"""Which input files a list of paths, patterns and URLs means."""

from __future__ import annotations

import glob
import stat
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from salamandra_data.errors import DataError, DataWarning
from salamandra_data.readers.by_products import by_products, found_by_products, warn_of_by_products
from salamandra_data.readers.document import some_names
from salamandra_data.readers.formats import ENDINGS, ENDINGS_IN_DIRECTORIES, format_of, is_input_in_directory
from salamandra_data.readers.overlap import refuse_overlap
from salamandra_data.storage import (
    Location,
    RemotePath,
    as_location,
    check_searchable,
    files_below,
    is_directory,
    is_file,
    with_retries,
)


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
        found += _files_of(entry)
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
    if is_file(entry):
        return [entry]
    if matches := _matches(entry):
        return matches
    if is_directory(entry):
        return _inside(entry)
    if isinstance(entry, Path) and entry.exists():
        raise _no_file(entry)
    raise DataError(f"{entry}: no such file or directory, and no pattern that matches one")


def _no_file(path: Path) -> DataError:
    """What is wrong with something that is there, and neither file nor directory."""
    if not path.exists():
        return DataError(
            f"{path}: is a link to {path.readlink()}, where there is no file\n  mend or remove it"
        )
    mode = path.stat().st_mode
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    return DataError(
        f"{path}: is {kind} and no file; input is read more than once, and by several processes\n"
        "  write what comes out of it to a file first, for example: zcat a.gz > a.jsonl"
    )


def _matches(entry: Location) -> list[Location]:
    if not glob.has_magic(entry.key if isinstance(entry, RemotePath) else str(entry)):
        return []
    if isinstance(entry, RemotePath):
        system, url = entry.filesystem(), entry.url
        found = with_retries(str(entry), lambda: system.glob(url))
        return [RemotePath(system.unstrip_protocol(path)) for path in sorted(found) if system.isfile(path)]
    _check_searchable(entry)
    files: list[Path] = []
    directories: list[Path] = []
    for path in (Path(match) for match in sorted(glob.glob(str(entry), recursive=True))):
        if is_file(path):
            files.append(path)
        elif is_directory(path):
            directories.append(path)
        else:
            raise _no_file(path)
    if directories and "**" not in str(entry):
        _warn(f"{entry}: directories are left out of a pattern without **: {_some(directories)}")
    left_out = set(found_by_products(files, str(entry)))
    if left_out:
        warn_of_by_products(entry, {path.name for path in left_out})
    return [path for path in files if path not in left_out]


def _check_searchable(pattern: Path) -> None:
    """Refuse directories that :mod:`glob` would pass over because this user may not search them."""
    parts = pattern.parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    for number in range(first, len(parts)):
        above = Path(*parts[:number]) if number else Path()
        for match in glob.glob(str(above), recursive=True) if glob.has_magic(str(above)) else [above]:
            if is_directory(Path(match)):
                check_searchable(Path(match))


def _inside(directory: Location) -> list[Location]:
    inside: list[Location] = []
    others: list[Location] = []
    for path in sorted(files_below(directory, left_out=_by_products)):
        (inside if is_input_in_directory(path.name) else others).append(path)
    if not inside:
        found = f"; it holds {_some(others)}" if others else ""
        remedy = (
            "\n  name .json files one by one, or by a pattern, if they hold JSON lines"
            if any(path.name.lower().endswith(".json") for path in others)
            else ""
        )
        raise DataError(
            f"{directory}: no input file in this directory{found}; looked for {ENDINGS_IN_DIRECTORIES}{remedy}"
        )
    if others:
        _warn(
            f"{directory}: {len(others):,} of {len(inside) + len(others):,} files are left out, because of their "
            f"endings: {_some(others)}"
        )
    return inside


def _by_products(directory: Location, names: Collection[str]) -> Collection[str]:
    """By-products of other commands among ``names``, which are left out, and said to be."""
    found = by_products(directory, names)
    if found:
        warn_of_by_products(directory, found)
    return found


def _some(paths: Sequence[Location]) -> str:
    return some_names(path.name for path in paths)


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)
