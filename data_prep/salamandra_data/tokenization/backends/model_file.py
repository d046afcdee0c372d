"""Reading a SentencePiece model file as what it is: a description of pieces and options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

NORMAL, USER_DEFINED, UNUSED = 1, 4, 5
"""Types of pieces."""

SPACE = "\u2581"
"""What a model writes for a space."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file says.

    Attributes:
        pieces: text, type and score of each piece; its place is its id.
        trainer: SentencePiece's ``TrainerSpec``.
        normalizer: SentencePiece's ``NormalizerSpec``.
    """

    pieces: tuple[tuple[str, int, float], ...]
    trainer: Any
    normalizer: Any

    def scores(self) -> dict[str, float]:
        """The pieces that merges make, each with its score."""
        return {piece: score for piece, kind, score in self.pieces if kind == NORMAL}

    def user_defined(self) -> dict[str, int]:
        """The pieces that are cut out of the text first, each with its id."""
        return {piece: number for number, (piece, kind, _) in enumerate(self.pieces) if kind == USER_DEFINED}


@lru_cache(maxsize=2)
def read_model(model: Path) -> ModelFile:
    """Read a file that SentencePiece has read before."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    pieces = tuple((piece.piece, piece.type, piece.score) for piece in proto.pieces)
    return ModelFile(pieces, proto.trainer_spec, proto.normalizer_spec)
