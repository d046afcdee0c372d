"""Text to ids: SentencePiece, in batches, without Python lists of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.sentencepiece_file import open_sentencepiece
from salamandra_data.shards import TokenizerIdentity

SENTENCEPIECE_VERSION: str = sentencepiece.__version__


@dataclass(frozen=True)
class TokenRows:
    """Rows of ids, one after the other.

    Attributes:
        ids: [sum of lengths], int32 or uint32.
        lengths: [rows], int64.
    """

    ids: NDArray[Any]
    lengths: NDArray[np.int64]

    @classmethod
    def joined(cls, rows: Sequence[NDArray[Any]]) -> TokenRows:
        """The rows of a list of arrays."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
        return cls(ids, lengths)

    def split(self) -> list[NDArray[Any]]:
        """One array per row; views, not copies."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.ids[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []

    def with_last(self, last_id: int) -> TokenRows:
        """The rows, each with ``last_id`` at its end."""
        longer = self.lengths + 1
        ids = np.empty(self.ids.size + longer.size, dtype=np.int32)
        is_last = np.zeros(ids.size, dtype=bool)
        is_last[np.cumsum(longer) - 1] = True
        ids[is_last] = last_id
        ids[~is_last] = self.ids
        return TokenRows(ids, longer)


class Encoder:
    """One SentencePiece model, read from the file ``model``; the reference for what the ids of a text are."""

    def __init__(self, model: Path) -> None:
        self._processor = open_sentencepiece(model)
        eod_id = int(self._processor.eos_id())
        if eod_id < 0:
            raise DataError(
                f"{model}: has no </s>, which ends each document\n  train it with `data train-tokenizer`"
            )
        self.model = model
        self.identity = TokenizerIdentity(sha256_of_file(model), len(self._processor), eod_id)

    def encode_rows(self, texts: Sequence[bytes]) -> TokenRows:
        """The ids of each UTF-8 text, without an end-of-document id."""
        return TokenRows.joined(self._processor.encode(list(texts), return_type="numpy", num_threads=1))

    def decode(self, ids: NDArray[np.int32]) -> str:
        """The text of a row of ids."""
        text: str = self._processor.decode([int(token) for token in ids])
        return text


@lru_cache(maxsize=2)
def cached_encoder(model: Path) -> Encoder:
    """The encoder of a model file, loaded once per process."""
    return Encoder(model)
