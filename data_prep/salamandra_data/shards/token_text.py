"""What rows of ids stand for: their text, and how many bytes it has without making it."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salamandra_data.sentencepiece_file import open_sentencepiece

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


class TokenText:
    """A tokenizer's model, read to turn ids back into text.

    Raises:
        DataError: ``model`` is not a SentencePiece model.
    """

    def __init__(self, model: Path) -> None:
        self._processor = open_sentencepiece(model)

    def decode(self, document: NDArray[Any]) -> str:
        """The text of one document, without its end-of-document id.

        Args:
            document: [tokens], any integer dtype.
        """
        ids: list[int] = document.tolist()
        if ids and ids[-1] == self._processor.eos_id():
            ids.pop()
        text: str = self._processor.decode(ids)
        return text

    def count_bytes(self, ids: NDArray[Any], lengths: NDArray[np.int32]) -> int:
        """UTF-8 bytes of documents laid end to end; exact for text that normalization leaves as it is.

        Args:
            ids: [sum of lengths], each document with its end-of-document id.
            lengths: [documents], tokens of each.
        """
        added = self._added_bytes * int(np.count_nonzero(lengths > 1))
        return int(self._piece_bytes[ids].sum()) - added

    @cached_property
    def _piece_bytes(self) -> NDArray[np.int64]:
        processor = self._processor
        return np.array([_bytes_of_piece(processor, number) for number in range(len(processor))], np.int64)

    @cached_property
    def _added_bytes(self) -> int:
        # A tokenizer may put a space before each text, which decoding takes away again.
        return int(self._piece_bytes[self._processor.encode("a")].sum()) - 1


@lru_cache(maxsize=2)
def cached_token_text(model: Path) -> TokenText:
    """The model of a file, loaded once per process."""
    return TokenText(model)


def _bytes_of_piece(processor: SentencePieceProcessor, number: int) -> int:
    if processor.is_control(number) or processor.is_unknown(number):
        return 0
    if processor.is_byte(number):
        return 1
    return len(processor.id_to_piece(number).replace("\u2581", " ").encode())
