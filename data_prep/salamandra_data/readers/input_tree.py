"""All files of a directory tree, on disk or behind a URL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers.by_products import by_products, warn_of_by_products
from salamandra_data.readers.formats import format_of
from salamandra_data.storage import Location, RemotePath, is_hidden_below


def files_below(directory: Location) -> Iterator[Location]:
    """The files of a tree, in no order. Links are followed, but for those that lead back up; hidden names are not.

    By-products of other commands are left out, and warned about.

    Raises:
        DataError: the name of a link is one of input, and there is nothing where it leads.
        PermissionError: a directory may not be searched.
    """
    if isinstance(directory, Path):
        return _on_disk(directory, ())
    return _behind_url(directory)


def _on_disk(directory: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    above = (*above, directory.resolve())
    entries = list(directory.iterdir())
    left_out = by_products(directory, [path.name for path in entries])
    if left_out:
        warn_of_by_products(directory, left_out)
    for path in entries:
        if path.name.startswith(".") or path.name in left_out:
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


def _behind_url(directory: RemotePath) -> Iterator[RemotePath]:
    inside = list(directory.rglob("*"))
    names: dict[RemotePath, set[str]] = defaultdict(set)
    for path in inside:
        while path != directory:
            names[path.parent].add(path.name)
            path = path.parent
    left_out = {place: found for place, there in names.items() if (found := by_products(place, there))}
    for place, found in left_out.items():
        warn_of_by_products(place, found)
    gone = tuple(f"{place / name}" for place, found in left_out.items() for name in found)
    for path in inside:
        if not is_hidden_below(path, directory) and not any(
            f"{path}/".startswith(f"{place}/") for place in gone
        ):
            yield path
