"""By-products: files that a command writes beside its documents and that look like input, but are none.

Samples of removed documents, or the two sides of a study, would come back as text to train on if the directory above
them were given as input. The command that writes them names them in a file ``.by-products`` beside them, one name a
line; whoever searches that directory leaves them out. What is named as input itself is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.storage import Location

BY_PRODUCTS = ".by-products"
"""Name of the file that lists them, one a line."""

# What commands left before they wrote markers, by the report that lies beside it.
_UNMARKED = {"curation.json": ("removed",), "fertility.json": ("training.jsonl", "held-out.jsonl")}


def mark_by_products(directory: Path, names: Collection[str]) -> None:
    """Say, before they are written, which files or directories in ``directory`` are by-products.

    Raises:
        DataError: one is there already that is not known for one, or the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    there = [entry.name for entry in directory.iterdir()]
    for name in set(names) & set(there) - by_products(directory, there):
        raise DataError(
            f"{directory / name}: is there already and would be written over\n  choose another --out"
        )
    known = _listed(directory / BY_PRODUCTS) if BY_PRODUCTS in there else ()
    listed = sorted({*known, *names} - {""})
    atomic_write_bytes(directory / BY_PRODUCTS, "".join(f"{name}\n" for name in listed).encode())


def by_products(directory: Location, there: Collection[str]) -> frozenset[str]:
    """Which names in a directory are by-products.

    Args:
        directory: that is searched.
        there: the names in it.
    """
    marked = (
        _listed(directory / BY_PRODUCTS)
        if BY_PRODUCTS in there and (directory / BY_PRODUCTS).exists()
        else ()
    )
    unmarked = (name for report, names in _UNMARKED.items() if report in there for name in names)
    return frozenset({*marked, *unmarked}) & frozenset(there)


def found_by_products(paths: Iterable[Path], pattern: str) -> list[Path]:
    """Which matches of a glob pattern are, or are in, by-products that the pattern does not spell out."""
    known: dict[Path, frozenset[str]] = {}

    def is_one(path: Path) -> bool:
        for part in (path, *path.parents):
            if pattern == str(part) or pattern.startswith(f"{part}/"):
                return False
            if part.parent not in known:
                known[part.parent] = by_products(part.parent, [entry.name for entry in part.parent.iterdir()])
            if part.name in known[part.parent]:
                return True
        return False

    return [path for path in paths if is_one(path)]


def warn_of_by_products(directory: Location, names: Iterable[str]) -> None:
    """Say what was left out of a directory."""
    warnings.warn(
        f"{directory}: left out {', '.join(sorted(names))}: by-products of an earlier command, no input; name them "
        "to read them all the same",
        DataWarning,
        stacklevel=5,
    )


def _listed(marker: Location) -> list[str]:
    return marker.read_bytes().decode(errors="replace").split("\n")
