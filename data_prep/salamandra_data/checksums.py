"""Checksums of whole files."""

from __future__ import annotations

import hashlib

from salamandra_data.errors import DataError
from salamandra_data.storage import Location

_BLOCK_BYTES = 1 << 20


def sha256_of_file(path: Location) -> str:
    """Hexadecimal SHA-256 of a whole file, read in blocks."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
