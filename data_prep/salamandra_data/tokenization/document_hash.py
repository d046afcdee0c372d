"""The hashes that decide a document's place in the shuffle and its split."""

from __future__ import annotations

import hashlib
import struct

from salamandra_data.readers import Document

KEY_RANGE = 1 << 64
_PLACE = struct.Struct("<QQ")


def shuffle_key(seed: int, file_number: int, line: int) -> int:
    """A number in ``[0, 2**64)`` to sort by: the same place in the same input gets the same key."""
    place = _PLACE.pack(file_number, line)
    digest = hashlib.blake2b(place, key=seed.to_bytes(8, "little", signed=True), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def is_validation(text: bytes, fraction: float) -> bool:
    """Whether a text belongs to the validation split.

    Decided by the text alone: whatever file, seed or run, equal texts are on the same side.
    """
    if fraction == 0.0:
        return False
    digest = hashlib.blake2b(text, digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest, "little") < fraction * KEY_RANGE


def content_digest(key: int, document: Document) -> int:
    """128 bits over everything that reaches a shard; the digest of a set is the sum of its documents'."""
    digest = hashlib.blake2b(key.to_bytes(8, "little"), digest_size=16)
    for part in (document.text, (document.source or "").encode(), (document.licence or "").encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")
