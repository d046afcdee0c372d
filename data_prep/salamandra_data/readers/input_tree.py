"""All files of a directory tree, on disk or behind a URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers.formats import format_of
from salamandra_data.storage import Location, is_hidden_below


def files_below(directory: Location) -> Iterator[Location]:
    """The files of a tree, in no order. Links are followed, but for those that lead back up; hidden names are not.

    Raises:
        DataError: the name of a link is one of input, and there is nothing where it leads.
        PermissionError: a directory may not be searched.
    """
    if isinstance(directory, Path):
        return _on_disk(directory, ())
    return (path for path in directory.rglob("*") if not is_hidden_below(path, directory))


def _on_disk(directory: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    above = (*above, directory.resolve())
    for path in directory.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.resolve() not in above:
                yield from _on_disk(path, above)
        elif path.is_file():
            yield path
        elif path.is_symlink() and format_of(path.name) is not None:
            raise DataError(
                f"{path}: is a link to {path.readlink()}, where there is no file\n  mend or remove it"
            )
