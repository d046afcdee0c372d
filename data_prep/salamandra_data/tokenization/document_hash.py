"""The hashes that decide a document's place in the shuffle and its split, and tell sets of documents apart."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

KEY_RANGE = 1 << 64
_LOW_BITS = 32
_GOLDEN = 0x9E3779B97F4A7C15


def shuffle_keys(seed: int, file_number: int, lines: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What to sort documents by: the same place in the same input gets the same key.

    SplitMix64 (Steele, Lea and Flood 2014) whose state starts at a hash of seed and file, and whose step is the line:
    different lines of a file get different keys.

    Args:
        seed: of the order.
        file_number: of the input file.
        lines: [documents], uint64.
    Returns:
        [documents], uint64.
    """
    start = hashlib.blake2b(b"%d %d" % (seed, file_number), digest_size=8, person=b"shuffle").digest()
    with np.errstate(over="ignore"):  # arithmetic is modulo 2**64
        mixed = lines * np.uint64(_GOLDEN) + np.uint64(int.from_bytes(start, "little"))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def even_bounds(parts: int, first: int = 0, last: int = KEY_RANGE) -> tuple[int, ...]:
    """Bounds that divide the keys from ``first`` to ``last`` (exclusive) into ``parts`` ranges of one width."""
    return tuple(first + (last - first) * part // parts for part in range(parts + 1))


def is_validation(text: bytes, fraction: float) -> bool:
    """Whether a text belongs to the validation split.

    Decided by the text alone: whatever file, seed or run, equal texts are on the same side.
    """
    if fraction == 0.0:
        return False
    digest = hashlib.blake2b(text, digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest, "little") < fraction * KEY_RANGE


def is_chosen(keys: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which documents are in a share of all, by the half of their keys that says nothing of their order.

    Args:
        keys: [documents], uint64.
        share: between 0 and 1.
    Returns:
        [documents], bool.
    """
    low = (keys & np.uint64((1 << _LOW_BITS) - 1)).astype(np.int64)
    chosen: NDArray[np.bool_] = low < round(share * (1 << _LOW_BITS))
    return chosen


class ContentDigest:
    """A SHA-256 over documents that come in batches of any size, in their order."""

    def __init__(self) -> None:
        self._records, self._places = hashlib.sha256(), hashlib.sha256()

    def update(self, records: bytes, *places: NDArray[np.uint64]) -> None:
        """Take the next documents: all that they hold, and numbers of each that tell where, and where one ends."""
        self._records.update(records)
        self._places.update(np.stack(places, axis=1).astype("<u8").tobytes())

    def hexdigest(self) -> str:
        """Of all documents so far."""
        return hashlib.sha256(self._records.digest() + self._places.digest()).hexdigest()
