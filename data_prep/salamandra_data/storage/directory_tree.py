"""All files of a directory tree, on disk or behind a URL. The one walker: for text and for shards."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from salamandra_data.errors import DataError
from salamandra_data.storage.location import Location, RemotePath, is_hidden_below

_LeftOut: TypeAlias = Callable[[Location, Collection[str]], Collection[str]]


def files_below(directory: Location, *, left_out: _LeftOut | None = None) -> Iterator[Location]:
    """The files of a tree, in no order. Links are followed, except those that lead back up; hidden names are not.

    A file that several links lead to comes once for each of them. Pipes and other things that are no files are left
    out.

    Args:
        left_out: a directory and all names in it, hidden ones too -> the names to leave out.
    Raises:
        DataError: a directory may not be searched, or a link leads to nothing: it may have been a whole directory.
    """
    choose = left_out or (lambda place, names: ())
    if isinstance(directory, Path):
        return _on_disk(directory, choose, ())
    return _behind_url(directory, choose)


def is_directory(location: Location) -> bool:
    """Whether there is a directory, or objects below the URL.

    Raises:
        DataError: a directory above it may not be searched.
    """
    if isinstance(location, RemotePath):
        return location.is_dir()
    return stat.S_ISDIR(_mode(location))


def is_file(location: Location) -> bool:
    """Whether there is a regular file, or an object.

    Raises:
        DataError: a directory above it may not be searched.
    """
    if isinstance(location, RemotePath):
        return location.is_file()
    return stat.S_ISREG(_mode(location))


def check_searchable(directory: Path) -> None:
    """Refuse a directory whose files this user cannot list and reach.

    Raises:
        DataError: naming it.
    """
    try:
        with os.scandir(directory):
            pass
        (directory / ".").stat()
    except PermissionError as error:
        raise _may_not_be_searched(directory, error) from error


def _behind_url(directory: RemotePath, left_out: _LeftOut) -> Iterator[RemotePath]:
    inside = list(directory.rglob("*"))
    names: dict[RemotePath, set[str]] = defaultdict(set)
    for path in inside:
        while path != directory:
            names[path.parent].add(path.name)
            path = path.parent
    gone = tuple(f"{place / name}/" for place, there in names.items() for name in left_out(place, there))
    for path in inside:
        if not is_hidden_below(path, directory) and not f"{path}/".startswith(gone):
            yield path


def _on_disk(directory: Path, left_out: _LeftOut, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        about = directory.stat()
        names = sorted(entry.name for entry in os.scandir(directory))
    except PermissionError as error:
        raise _may_not_be_searched(directory, error) from error
    above = (*above, (about.st_dev, about.st_ino))
    gone = left_out(directory, names)
    for name in names:
        if name.startswith(".") or name in gone:
            continue
        path = directory / name
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            below = path.stat()
            if (below.st_dev, below.st_ino) not in above:
                yield from _on_disk(path, left_out, above)
        elif stat.S_ISREG(mode):
            yield path
        elif not mode and path.is_symlink() and not _leads_to_itself(path):
            raise DataError(
                f"{path}: is a link to {path.readlink()}, where there is no file and no directory\n"
                "  mend or remove it (is a disk not mounted?)"
            )


def _mode(path: Path) -> int:
    """Kind and permissions, of what a link leads to; 0 if there is nothing."""
    try:
        return path.stat().st_mode
    except PermissionError as error:
        raise _may_not_be_searched(path.parent, error) from error
    except OSError:  # nothing there, a part of the path is a file, a name that is too long, a circle of links
        return 0
    except ValueError:  # NUL in the name
        return 0


def _leads_to_itself(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _may_not_be_searched(directory: Path, error: PermissionError) -> DataError:
    return DataError(
        f"{directory}: may not be read by this user: {error.strerror or error}\n"
        "  make the directory searchable (r and x), or leave it out"
    )
