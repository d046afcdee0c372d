"""Where the bytes of a shard are: file names, the ``.idx`` header and the dtype codes.

An ``.idx`` file, little-endian throughout, for ``n`` sequences and ``d`` documents:

====== ======== ==========================================================
offset bytes    content
====== ======== ==========================================================
0      9        ``MMIDIDX`` and two zero bytes
9      8        version, 1
17     1        dtype code
18     8        n
26     8        d + 1
34     4n       int32 sequence lengths in tokens
34+4n  8n       int64 sequence starts in bytes of the ``.bin``
34+12n 8(d+1)   int64 first sequence of each document, then n
====== ======== ==========================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.storage import Location, RemotePath

Place = TypeVar("Place", Path, RemotePath, Location)

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
SMALL_VOCABULARY = 65500  # Megatron's limit for two-byte ids; a little below 2**16


def bin_path(prefix: Place) -> Place:
    """``PREFIX.bin``: appended, not substituted, because a prefix may contain dots."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Place) -> Place:
    """``PREFIX.idx``."""
    return prefix.with_name(prefix.name + ".idx")


def manifest_path(prefix: Place) -> Place:
    """``PREFIX.json``."""
    return prefix.with_name(prefix.name + ".json")


def publishing_path(prefix: Path) -> Path:
    """The hidden manifest beside ``.bin`` and ``.idx`` that are being given their names: it says that they are ours."""
    return prefix.with_name(f".{prefix.name}.json.publishing")


def shard_prefix(path: Place) -> Place:
    """The prefix that ``path`` means: itself, or what is left without a shard's file ending."""
    return path.with_suffix("") if path.suffix in (".bin", ".idx", ".json") else path


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype Megatron chooses for ids of a vocabulary: uint16 below 65,500, else int32."""
    return DTYPES[8] if vocab_size < SMALL_VOCABULARY else DTYPES[4]


def dtype_code(dtype: np.dtype[Any]) -> int:
    """The code of ``dtype`` in an ``.idx`` header."""
    return next(code for code, known in DTYPES.items() if known == dtype)


@dataclass(frozen=True)
class IndexHeader:
    """The counts in an ``.idx`` header, and the offsets that follow from them."""

    dtype: np.dtype[Any]
    sequences: int
    documents: int

    @property
    def starts_offset(self) -> int:
        """Byte offset of the sequence starts."""
        return HEADER.size + 4 * self.sequences

    @property
    def documents_offset(self) -> int:
        """Byte offset of the document indices."""
        return HEADER.size + 12 * self.sequences

    @property
    def file_bytes(self) -> int:
        """Size of the whole ``.idx`` file."""
        return self.documents_offset + 8 * (self.documents + 1)

    def pack(self) -> bytes:
        """The 34 bytes on disk."""
        return HEADER.pack(MAGIC, VERSION, dtype_code(self.dtype), self.sequences, self.documents + 1)

    @classmethod
    def unpack(cls, path: Location, raw: bytes) -> IndexHeader:
        """Parse the first 34 bytes of the ``.idx`` file at ``path``.

        Raises:
            DataError: not an index, another version, or an unknown dtype.
        """
        if len(raw) < HEADER.size:
            raise DataError(f"{path}: {len(raw)} bytes, shorter than an index header ({HEADER.size} bytes)")
        magic, version, code, sequences, document_indices = HEADER.unpack(raw[: HEADER.size])
        if magic != MAGIC:
            raise DataError(f"{path}: not a Megatron index (starts with {magic!r} instead of {MAGIC!r})")
        if version != VERSION:
            raise DataError(f"{path}: index version {version}; only version {VERSION} is known")
        dtype = DTYPES.get(code)
        if dtype is None or dtype.kind == "f":
            raise DataError(f"{path}: dtype code {code} does not stand for token ids")
        if document_indices < 1:
            raise DataError(f"{path}: has no document indices, not even the leading zero")
        return cls(dtype=dtype, sequences=sequences, documents=document_indices - 1)
