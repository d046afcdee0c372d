"""Finding shards: which prefixes a list of files and directories means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.indexed import bin_path, idx_path
from salamandra_data.indexed.layout import shard_prefix

TOKENIZER_FILE_NAME = "tokenizer.model"
"""The copy of the tokenizer that `salamandra data tokenize` leaves beside the shards."""


def find_shards(locations: Sequence[Path | str]) -> list[Path]:
    """Absolute prefixes of the shards in the given directories (searched whole), prefixes and shard files.

    The order is that of ``locations``, and by name within a directory; a shard reached twice is listed once.

    Raises:
        DataError: a location does not exist, a directory holds no shard, or a ``.bin`` has no ``.idx``.
    """
    prefixes: dict[Path, None] = {}
    for location in locations:
        path = Path(location).absolute()
        if path.is_dir():
            found = _shards_below(path)
            if not found:
                raise DataError(
                    f"{path}: no shard (.idx file) in this directory\n  tokenize text into it first"
                )
        else:
            prefix = shard_prefix(path)
            if not idx_path(prefix).is_file() and not bin_path(prefix).is_file():
                raise DataError(
                    f"{location}: neither a directory nor a shard ({idx_path(prefix)} does not exist)"
                )
            found = [prefix]
        prefixes.update(dict.fromkeys(found))
    return list(prefixes)


def _shards_below(directory: Path) -> list[Path]:
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(directory).parts)  # unfinished work
    ]
    for path in files:
        if path.suffix == ".bin" and not path.with_suffix(".idx").exists():
            raise DataError(
                f"{path}: has no .idx beside it\n  copy both files of the shard, or prepare it again"
            )
    return [path.with_suffix("") for path in files if path.suffix == ".idx"]
