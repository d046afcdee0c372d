"""The manifest of a checkpoint: which files it has, how long they are, and their checksums."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.run_directory.checkpoint_state import CheckpointError
from megatron_salamandra.run_directory.checkpoints import MANIFEST

FORMAT = "salamandra-checkpoint-1"
REMEDY = "move the directory away to resume from an earlier one"
_BLOCK_BYTES = 1 << 22


def crc32_of(path: Path) -> int:
    """CRC-32 of a file, read in blocks: against accidents, at the speed of the disk."""
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def describe_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Size and checksum of files, by their path relative to ``directory``."""
    return {
        name: {"bytes": (directory / name).stat().st_size, "crc32": crc32_of(directory / name)}
        for name in names
    }


def write_manifest(directory: Path, files: dict[str, dict[str, int]]) -> None:
    """Write the manifest; everything it names must be on disk already."""
    contents = {"format": FORMAT, "files": dict(sorted(files.items()))}
    atomic_write_bytes(directory / MANIFEST, json.dumps(contents, indent=1).encode())


def verify_checkpoint(directory: Path, *, checksums: bool = True) -> int:
    """Compare a checkpoint with its manifest and return its size in bytes.

    Args:
        checksums: False compares sizes only, which is what a resume does before it loads.
    Raises:
        CheckpointError: names the first file that is missing, cut short or altered.
    """
    path = directory / MANIFEST
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        known = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}; {REMEDY}") from error
    if not known:
        raise CheckpointError(f"{path}: format {manifest['format']!r} is not {FORMAT!r}")
    total = 0
    for name, expected in files.items():
        file = directory / name
        try:
            size = file.stat().st_size
        except OSError as error:
            raise CheckpointError(f"{file} is missing; {REMEDY}") from error
        if size != expected["bytes"]:
            raise CheckpointError(f"{file} has {size} bytes instead of {expected['bytes']}; {REMEDY}")
        if checksums and crc32_of(file) != expected["crc32"]:
            raise CheckpointError(f"{file} does not have its recorded checksum; {REMEDY}")
        total += size
    return total
