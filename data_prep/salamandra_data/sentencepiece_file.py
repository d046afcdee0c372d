"""Opening a SentencePiece model's file, so that what is wrong with it is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


def open_sentencepiece(model: Path) -> SentencePieceProcessor:
    """The model of a file.

    Raises:
        DataError: ``model`` is not a SentencePiece model, or a piece of it is not UTF-8, which SentencePiece itself
            notices only at the first text that holds the piece.
    """
    import sentencepiece  # here, because training reads shards and needs no tokenizer

    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        processor.id_to_piece(list(range(len(processor))))
        processor.decode([processor.unk_id()])
    except (OSError, RuntimeError, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"{model}: cannot be read as a SentencePiece model: {error}") from error
    return processor
