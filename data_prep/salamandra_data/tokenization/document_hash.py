"""The hashes that decide a document's place in the shuffle and its split, and tell sets of documents apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
        self._texts, self._places, self._labels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._documents = 0
        self._last_label: object = None

    def update(
        self,
        text: bytes,
        lengths: NDArray[np.uint64],
        lines: NDArray[np.uint64],
        labels: Sequence[object],
    ) -> None:
        """Take the next documents: their texts together, bytes and line of each, and what else is known of them."""
        self._texts.update(text)
        self._places.update(np.stack((lines, lengths), axis=1).astype("<u8").tobytes())
        for number, label in enumerate(labels, start=self._documents):
            if label != self._last_label:  # few labels change from one document to the next
                self._labels.update(f"{number} {label!r}\n".encode())
                self._last_label = label
        self._documents += len(labels)

    def hexdigest(self) -> str:
        """Of all documents so far."""
        parts = self._texts.digest() + self._places.digest() + self._labels.digest()
        return hashlib.sha256(parts).hexdigest()
