"""Finding shards: which prefixes a list of files and directories means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from salamandra_data.atomic_write import atomic_write_bytes, sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.indexed import TokenizerIdentity, bin_path, idx_path, manifest_path
from salamandra_data.indexed.layout import shard_prefix

TOKENIZER_FILE_NAME = "tokenizer.model"
"""The copy of the tokenizer that `salamandra data tokenize` leaves beside the shards."""

_MANIFEST_NAME = re.compile(r".+-(train|validation)-\d{5,}\.json")


def find_shards(locations: Sequence[Path | str]) -> list[Path]:
    """Absolute prefixes of the shards in the given directories (searched whole), prefixes and shard files.

    A shard is known by any of its files, so that one whose ``.bin`` or ``.idx`` was lost is listed too and not
    passed over. The order is that of ``locations``, and by name within a directory; a shard reached twice is listed
    once.

    Raises:
        DataError: a location does not exist, a directory holds no shard.
    """
    prefixes: dict[Path, None] = {}
    for location in locations:
        path = Path(location).absolute()
        if path.is_dir():
            found = _shards_below(path)
            if not found:
                raise DataError(f"{path}: no shard in this directory\n  tokenize text into it first")
        else:
            prefix = shard_prefix(path)
            if not any(place(prefix).is_file() for place in (idx_path, bin_path, manifest_path)):
                raise DataError(
                    f"{location}: neither a directory nor a shard ({idx_path(prefix)} does not exist)"
                )
            found = [prefix]
        prefixes.update(dict.fromkeys(found))
    return list(prefixes)


def one_shard(location: Path | str) -> Path:
    """The absolute prefix of the one shard that ``location`` means.

    Raises:
        DataError: it means none or several.
    """
    prefixes = find_shards([location])
    if len(prefixes) != 1:
        raise DataError(f"{location}: {len(prefixes)} shards are here; name one of them")
    return prefixes[0]


def missing_files(prefix: Path) -> list[Path]:
    """The files without which the shard cannot be read: none, if it is whole."""
    return [path for path in (bin_path(prefix), idx_path(prefix)) if not path.is_file()]


def tokenizer_file(path: Path) -> Path:
    """The model that ``path`` means: the file itself, or ``tokenizer.model`` in that directory.

    Raises:
        DataError: neither exists.
    """
    model = path / TOKENIZER_FILE_NAME if path.is_dir() else path
    if not model.is_file():
        raise DataError(
            f"{path}: neither a SentencePiece model file nor a directory that holds {TOKENIZER_FILE_NAME}"
        )
    return model


def verified_tokenizer(model: Path, expected: TokenizerIdentity) -> Path:
    """``model``, if it is the file that ``expected`` stands for.

    Raises:
        DataError: it is missing, or another tokenizer.
    """
    if not model.is_file():
        raise DataError(
            f"{model}: the tokenizer of the shards is not here\n  name the model file with --tokenizer"
        )
    found = sha256_of_file(model)
    if found != expected.sha256:
        raise DataError(
            f"{model}: is not the tokenizer of the shards (SHA-256 {found}, expected {expected.sha256})\n"
            "  name the right model file with --tokenizer"
        )
    return model


def keep_tokenizer(out: Path, model: Path, sha256: str) -> None:
    """Put a copy of ``model``, whose checksum is ``sha256``, beside the shards in ``out``.

    Raises:
        DataError: the directory already holds another tokenizer, or cannot be written.
    """
    copy = out / TOKENIZER_FILE_NAME
    if copy.exists():
        found = sha256_of_file(copy)
        if found != sha256:
            raise DataError(
                f"{copy}: the shards here are of another tokenizer (SHA-256 {found}) than {model} ({sha256})\n"
                "  choose another --out"
            )
    else:
        atomic_write_bytes(copy, model.read_bytes())


def _shards_below(directory: Path) -> list[Path]:
    prefixes: set[Path] = set()
    for path in directory.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(directory).parts):  # unfinished work
            continue
        if path.suffix in (".bin", ".idx") or _MANIFEST_NAME.fullmatch(path.name):
            prefixes.add(path.with_suffix(""))
    return sorted(prefixes)
