"""Text to ids: SentencePiece, in batches, without Python lists of ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.shards import TokenizerIdentity
from salamandra_data.tokenization.token_rows import TokenRows

SENTENCEPIECE_VERSION: str = sentencepiece.__version__


class Encoder:
    """One SentencePiece model, read from the file ``model``; the reference for what the ids of a text are."""

    def __init__(self, model: Path) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{model}: cannot be read as a SentencePiece model: {error}") from error
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
