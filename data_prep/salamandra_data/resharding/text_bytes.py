"""How many bytes of text a row of ids stands for, without making the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from salamandra_data.errors import DataError


class TextBytes:
    """UTF-8 bytes of each id of a tokenizer. Exact for text that normalization leaves as it is.

    Raises:
        DataError: ``model`` is not a SentencePiece model.
    """

    def __init__(self, model: Path) -> None:
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{model}: cannot be read as a SentencePiece model: {error}") from error
        self._bytes = np.array(
            [_piece_bytes(processor, number) for number in range(len(processor))], np.int64
        )
        # A tokenizer may put a space before each text, which decoding takes away again.
        self._added_bytes = int(self._bytes[processor.encode("a")].sum()) - 1

    def count(self, ids: NDArray[Any], lengths: NDArray[np.int32]) -> int:
        """Bytes of the text of documents laid end to end, each with its end-of-document id.

        Args:
            ids: [sum of lengths].
            lengths: [documents], tokens of each.
        """
        return int(self._bytes[ids].sum()) - self._added_bytes * int(np.count_nonzero(lengths > 1))


def _piece_bytes(processor: sentencepiece.SentencePieceProcessor, number: int) -> int:
    if processor.is_control(number) or processor.is_unknown(number):
        return 0
    if processor.is_byte(number):
        return 1
    return len(processor.id_to_piece(number).replace("\u2581", " ").encode())
