"""A fast encoder under guard: what it may not have goes to SentencePiece, and a share of what it does is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salamandra_data.errors import DataError
from salamandra_data.tokenization.backends.backend import FastBackend
from salamandra_data.tokenization.backends.long_texts import encode_in_pieces
from salamandra_data.tokenization.encoder import SENTENCEPIECE_VERSION, Encoder, TokenRows

_SHOWN_IDS = 6


@dataclass(frozen=True)
class TextBatch:
    """Texts to encode.

    Attributes:
        texts: UTF-8.
        fast: [texts], which of them :func:`exactness.may_be_fast` lets a fast encoder have.
        checked: [texts], which of them SentencePiece encodes as well.
        place: names a text by its number, such as ``file:line``.
    """

    texts: Sequence[bytes]
    fast: NDArray[np.bool_]
    checked: NDArray[np.bool_]
    place: Callable[[int], str]


class GuardedEncoder:
    """Gives SentencePiece's ids, by a fast encoder where there is one.

    Args:
        reference: SentencePiece with the model.
        backend: the same model in a fast encoder; None for SentencePiece alone.
    """

    def __init__(self, reference: Encoder, backend: FastBackend | None) -> None:
        self._reference, self._backend = reference, backend
        self.documents_checked = 0
        self.documents_by_reference = 0

    def encode(self, batch: TextBatch) -> TokenRows:
        """The ids of each text, without an end-of-document id.

        Raises:
            DataError: the fast encoder and SentencePiece differ on a checked text; names it and the first difference.
        """
        if self._backend is None:
            self.documents_by_reference += len(batch.texts)
            return self._by_reference(batch.texts)
        backend, all_fast = self._backend, bool(batch.fast.all())
        rows = self._by(backend, batch.texts) if all_fast else self._encode_mixed(backend, batch)
        self._check(backend, batch, rows)
        return rows

    def _by_reference(self, texts: Sequence[bytes]) -> TokenRows:
        return encode_in_pieces(self._reference.encode_rows, texts, self._reference.model)

    def _by(self, backend: FastBackend, texts: Sequence[bytes]) -> TokenRows:
        return encode_in_pieces(backend.encode, texts, self._reference.model)

    def _encode_mixed(self, backend: FastBackend, batch: TextBatch) -> TokenRows:
        by_backend = iter(self._by(backend, _chosen(batch.texts, batch.fast)).split())
        by_reference = iter(self._by_reference(_chosen(batch.texts, ~batch.fast)).split())
        self.documents_by_reference += int((~batch.fast).sum())
        return TokenRows.joined([next(by_backend if fast else by_reference) for fast in batch.fast])

    def _check(self, backend: FastBackend, batch: TextBatch, rows: TokenRows) -> None:
        numbers = np.flatnonzero(batch.checked & batch.fast).tolist()
        if not numbers:
            return
        expected = self._by_reference([batch.texts[number] for number in numbers]).split()
        ends = np.cumsum(rows.lengths)
        for number, right in zip(numbers, expected, strict=True):
            found = rows.ids[ends[number] - rows.lengths[number] : ends[number]]
            if not np.array_equal(found, right):
                raise DataError(_difference(backend, batch.place(number), found, right))
        self.documents_checked += len(numbers)


def _chosen(texts: Sequence[bytes], mask: NDArray[np.bool_]) -> list[bytes]:
    return [texts[number] for number in np.flatnonzero(mask).tolist()]


def _difference(backend: FastBackend, place: str, found: NDArray[Any], right: NDArray[Any]) -> str:
    shorter = min(found.size, right.size)
    unequal = np.flatnonzero(found[:shorter] != right[:shorter])
    first = int(unequal[0]) if unequal.size else shorter
    return (
        f"{place}: {backend.name} {backend.version} differs from SentencePiece {SENTENCEPIECE_VERSION} "
        f"at token {first:,} (of {found.size:,} and {right.size:,})\n"
        f"  {backend.name}: {_excerpt(found, first)}; SentencePiece: {_excerpt(right, first)}\n"
        f"  this shard was not written; remove the shards here whose .json names {backend.name}, "
        "and run again with --encoder sentencepiece"
    )


def _excerpt(ids: NDArray[Any], start: int) -> str:
    shown = " ".join(map(str, ids[start : start + _SHOWN_IDS].tolist()))
    return f"{shown} ..." if ids.size > start + _SHOWN_IDS else shown or "ends here"
