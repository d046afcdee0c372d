"""Refusing output that would be read as input."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers.by_products import BY_PRODUCTS, by_products
from salamandra_data.storage import Location, as_location


def refuse_overlap(
    entries: Sequence[Location | str], files: Iterable[Location], out: Path, *, option: str = "--input"
) -> None:
    """Refuse a directory for output that is inside the input, or the by-products of an earlier command as input.

    What is written inside the input is input of the next start: it would be read beside that of which it was made.
    Links are followed.

    Args:
        entries: files, directories and patterns, as the user names them.
        files: that they mean.
        out: directory, or file, to write.
        option: that names the input, for the message.
    Raises:
        DataError: naming both places.
    """
    target = out.resolve()
    local = [entry for entry in map(as_location, entries) if isinstance(entry, Path)]
    found = [path for path in files if isinstance(path, Path)]
    for entry in local:
        if entry.is_dir():
            if any(_holds(directory, target) for directory in _directories(entry, found)):
                raise DataError(
                    f"--out {out}: is inside {option} {entry}, and what is written there would be read as input "
                    f"next time\n  choose an --out beside it, or name the files or directories to read"
                )
        elif glob.has_magic(str(entry)) and not entry.is_file() and _matches_below(entry, target):
            raise DataError(
                f"--out {out}: {option} {entry} may match what is written there, which would be read as input next "
                "time\n  choose another --out, or a pattern that leaves it out"
            )
    for path in found:
        if path.parent.resolve() == target and path.name in by_products(target, [path.name, BY_PRODUCTS]):
            raise DataError(
                f"--out {out}: {option} {path} is what an earlier command wrote there, and would be written over\n"
                "  choose another --out"
            )


def _holds(directory: Path, place: Path) -> bool:
    return place == directory or directory in place.parents


def _directories(entry: Path, files: Sequence[Path]) -> Iterator[Path]:
    """A directory, and those below that were searched for its files, without links."""
    yield entry.resolve()
    below = {
        parent
        for path in files
        if entry in path.parents
        for parent in path.parents
        if entry in parent.parents
    }
    yield from (directory.resolve() for directory in sorted(below))


def _matches_below(pattern: Path, target: Path) -> bool:
    """Whether a file below ``target`` can match; where the pattern's fixed beginning has links, these are followed."""
    parts = pattern.absolute().parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    wanted = (*Path(*parts[:fixed]).resolve().parts, *parts[fixed:])
    for number, part in enumerate(target.parts):
        if number >= len(wanted):
            return False
        if wanted[number] == "**":
            return True
        if not fnmatch.fnmatchcase(part, wanted[number]):
            return False
    return len(wanted) > len(target.parts)
