"""Finding shards: which prefixes a list of files and directories means."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.shards.indexed_shard import IndexedShard
from salamandra_data.shards.layout import bin_path, idx_path, manifest_path, shard_prefix
from salamandra_data.shards.manifest import ShardManifest, TokenizerIdentity
from salamandra_data.storage import Location, RemotePath, as_location, files_below, is_directory, is_file
from salamandra_data.text_table import count_of, some_of

TOKENIZER_FILE_NAME = "tokenizer.model"
"""The copy of the tokenizer that `salamandra data tokenize` leaves beside the shards."""

_MANIFEST_NAME = re.compile(r".+-(train|validation)-\d{5,}\.json")


def find_shards(locations: Sequence[Location | str]) -> list[Location]:
    """Absolute prefixes or URLs of the shards in the given directories (searched whole), prefixes and shard files.

    A shard is known by any of its files, so that one whose ``.bin`` or ``.idx`` was lost is listed too and not
    passed over. Links are followed. The order is that of ``locations``, and by name within a directory. A shard that
    is reached twice is listed once, with a warning (:class:`DataWarning`) where links lead to it.

    Raises:
        DataError: a location does not exist or may not be searched, a directory holds no shard.
    """
    prefixes: dict[Location, None] = {}
    for location in locations:
        path = as_location(location).absolute()
        if not _is_shard_file(path) and is_directory(path):
            found = _shards_below(path)
            if not found:
                raise DataError(f"{path}: no shard in this directory\n  tokenize text into it first")
        else:
            prefix = shard_prefix(path)
            if not any(is_file(place(prefix)) for place in (idx_path, bin_path, manifest_path)):
                raise DataError(
                    f"{location}: neither a directory nor a shard ({idx_path(prefix)} does not exist)"
                )
            found = [prefix]
        prefixes.update(dict.fromkeys(found))
    return _once_each(prefixes)


def same_tokens(
    shards: Iterable[tuple[Location, ShardManifest]],
) -> Iterator[tuple[Location, Location]]:
    """Pairs of shards that hold the same tokens, such as a copy under another name beside its original.

    What blends, merges, inspects or verifies shards asks here.

    Shards that were made together, with different numbers, may: their documents are different ones.
    """
    seen: dict[str, tuple[Location, ShardManifest]] = {}
    for prefix, manifest in shards:
        if not manifest.tokens:
            continue
        other_prefix, other = seen.setdefault(manifest.bin_digest, (prefix, manifest))
        if other is not manifest and not (
            prefix.parent == other_prefix.parent
            and manifest.shards == other.shards
            and None not in (manifest.shard, other.shard)
            and manifest.shard != other.shard
        ):
            yield prefix, other_prefix


def one_shard(location: Location | str) -> Location:
    """The absolute prefix of the one shard that ``location`` means.

    Raises:
        DataError: it means none or several.
    """
    prefixes = find_shards([location])
    if len(prefixes) != 1:
        raise DataError(f"{location}: {count_of(len(prefixes), 'shard')} here\n  name one of them")
    return prefixes[0]


def missing_files(prefix: Location) -> list[Location]:
    """The files without which the shard cannot be read: none, if it is whole."""
    return [path for path in (bin_path(prefix), idx_path(prefix)) if not is_file(path)]


def check_complete(prefixes: Iterable[Location]) -> None:
    """Refuse shards of which a file is missing.

    Raises:
        DataError: naming shard and files.
    """
    for prefix in prefixes:
        if missing := missing_files(prefix):
            raise DataError(
                f"{prefix}: incomplete: {' and '.join(path.name for path in missing)} missing\n"
                "  copy all files of the shard, prepare it again, or remove what is left of it"
            )


def is_whole(prefix: Location) -> bool:
    """Whether all files of a shard are there, of the sizes and counts that its manifest tells; no ids are read."""
    try:
        manifest, shard = ShardManifest.load(prefix), IndexedShard.open(prefix)
    except DataError:
        return False
    found = (shard.documents, shard.tokens, shard.tokens * shard.dtype.itemsize)
    return found == (manifest.documents, manifest.tokens, manifest.bin_bytes)


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


def shards_tokenizer(prefix: Location, expected: TokenizerIdentity | None, given: Path | None = None) -> Path:
    """The model that made a shard: ``given``, else ``tokenizer.model`` beside the shard.

    Args:
        prefix: of the shard.
        expected: what the shard's manifest says; None where it has no manifest.
        given: model file that the user named.
    Raises:
        DataError: it is missing, or another tokenizer.
    """
    model = given or prefix.with_name(TOKENIZER_FILE_NAME)
    if not isinstance(model, Path) or not model.is_file():
        raise DataError(
            f"{model}: no tokenizer here that a shard could be read with\n  name the model file with --tokenizer"
        )
    if expected is not None and (found := sha256_of_file(model)) != expected.sha256:
        raise DataError(
            f"{model}: is not the tokenizer of {prefix} (SHA-256 {found}, expected {expected.sha256})\n"
            "  name the right model file with --tokenizer"
        )
    return model


def keep_tokenizer(out: Path, model: Path, sha256: str) -> None:
    """Put a copy of ``model``, whose checksum is ``sha256``, beside the shards in ``out``.

    Raises:
        DataError: the directory already holds another tokenizer.
        WriteError: it cannot be written.
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


def _is_shard_file(path: Location) -> bool:
    """Known by the name, because to ask a web server for a directory would fetch the file."""
    return isinstance(path, RemotePath) and path.suffix in (".bin", ".idx") and is_file(path)


def _shards_below(directory: Location) -> list[Location]:
    return sorted(
        {
            path.with_suffix("")
            for path in files_below(directory)
            if path.suffix in (".bin", ".idx") or _MANIFEST_NAME.fullmatch(path.name)
        }
    )


def _once_each(prefixes: Iterable[Location]) -> list[Location]:
    """Without the shards whose files are those of another one, which links lead to."""
    kept: dict[Location, Location] = {}
    left_out: list[str] = []
    for prefix in prefixes:
        files = [
            path for path in (bin_path(prefix), idx_path(prefix), manifest_path(prefix)) if is_file(path)
        ]
        other = kept.setdefault(files[0].resolve() if files else prefix, prefix)
        if other is not prefix:
            left_out.append(f"{prefix} (is {other})")
    if left_out:
        warnings.warn(
            f"{count_of(len(left_out), 'shard')} reached twice, through links, and counted once: "
            f"{some_of(left_out)}",
            DataWarning,
            stacklevel=3,
        )
    return list(kept.values())
