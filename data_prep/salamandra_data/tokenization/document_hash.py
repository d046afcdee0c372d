"""The hashes that decide a document's place in the shuffle and its split, and tell sets of documents apart."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

KEY_RANGE = 1 << 64
KEY_BYTES = 8
_PLACE = struct.Struct("<QQ")
_LOW_BITS = 32


def shuffle_keys(seed: int, file_number: int) -> Callable[[int], bytes]:
    """A function from a document's line to 8 bytes, little-endian, to sort by.

    The same place in the same input gets the same key.
    """
    keyed = hashlib.blake2b(key=seed.to_bytes(8, "little", signed=True), digest_size=KEY_BYTES)
    pack = _PLACE.pack

    def key(line: int) -> bytes:
        digest = keyed.copy()
        digest.update(pack(file_number, line))
        return digest.digest()

    return key


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

    def update(self, texts: Sequence[bytes], lines: Sequence[int], labels: Sequence[object]) -> None:
        """Take the next documents: texts, lines, and what else is known of them."""
        self._texts.update(b"".join(texts))
        self._places.update(np.array([lines, list(map(len, texts))], dtype="<i8").T.tobytes())
        for number, label in enumerate(labels, start=self._documents):
            if label != self._last_label:  # few labels change from one document to the next
                self._labels.update(f"{number} {label!r}\n".encode())
                self._last_label = label
        self._documents += len(texts)

    def hexdigest(self) -> str:
        """Of all documents so far."""
        parts = self._texts.digest() + self._places.digest() + self._labels.digest()
        return hashlib.sha256(parts).hexdigest()
