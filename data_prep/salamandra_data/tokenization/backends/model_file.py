"""Reading a SentencePiece model file as what it is: a description of pieces and options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from salamandra_data.errors import DataError

NORMAL, USER_DEFINED, UNUSED = 1, 4, 5
"""Types of pieces."""

SPACE = "\u2581"
"""What a model writes for a space."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file says.

    Attributes:
        pieces: text, type and score of each piece; its place is its id.
        rules: the strings that normalization rewrites, each with what it becomes.
        trainer: SentencePiece's ``TrainerSpec``.
        normalizer: SentencePiece's ``NormalizerSpec``.
    """

    pieces: tuple[tuple[str, int, float], ...]
    rules: tuple[tuple[str, str], ...]
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
    """Read a file that SentencePiece has read before.

    Raises:
        DataError: its normalization rules are damaged, which SentencePiece does not notice: it puts other text, or
            bytes that are no text, in the place of what the rules rewrite.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    pieces = tuple((piece.piece, piece.type, piece.score) for piece in proto.pieces)
    try:
        rules = tuple(_rules(proto.normalizer_spec.precompiled_charsmap))
    except (ValueError, IndexError) as error:
        raise DataError(f"{model}: the normalization rules of the model are damaged: {error}") from error
    return ModelFile(pieces, rules, proto.trainer_spec, proto.normalizer_spec)


def _rules(compiled: bytes) -> Iterator[tuple[str, str]]:
    """The strings that a model's compiled normalization rules rewrite, each with what it becomes.

    Args:
        compiled: ``precompiled_charsmap``: the size of a double-array trie, its 32-bit units, and the replacements,
            each ended by a zero byte. Unit layout: the Darts-clone library, which SentencePiece uses.
    Raises:
        ValueError, IndexError: they are damaged.
    """
    if not compiled:
        return
    size = int.from_bytes(compiled[:4], "little")
    replacements = compiled[4 + size :]
    units = np.frombuffer(compiled, dtype="<u4", count=size // 4, offset=4).astype(np.int64)
    labels = np.arange(1, 256)
    nodes, prefixes, seen = np.zeros(1, dtype=np.int64), [b""], 0
    while nodes.size:
        seen += nodes.size
        # Sources with the same end share its nodes, so each may be met more than once.
        if seen > 64 * units.size:
            raise ValueError("their trie goes round in a circle")
        heads = units[nodes]
        bases = nodes ^ (heads >> 10 << ((heads & 0x200) >> 6))
        for node in np.flatnonzero(heads >> 8 & 1).tolist():  # a value hangs here, so a source ends here
            start = int(units[bases[node]]) & 0x7FFFFFFF
            target = replacements[start : replacements.index(b"\0", start)]
            yield prefixes[node].decode(), target.decode()
        children = bases[:, None] ^ labels
        inside = children < units.size
        found = inside & ((units[np.where(inside, children, 0)] & 0x800000FF) == labels)
        parents, columns = np.nonzero(found)
        nodes = children[parents, columns]
        prefixes = [
            prefixes[parent] + bytes((label,))
            for parent, label in zip(parents.tolist(), labels[columns].tolist(), strict=True)
        ]
