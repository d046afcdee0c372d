"""Encoding a long text in pieces, with the ids of the whole.

SentencePiece takes memory and time out of proportion for long texts: 38 bytes for each byte of 10 MB, and 2.5 times the
time of pieces of 100 kB. A text may be cut at a single space between two other characters, and the space be dropped, as
the model puts one in front of each text, if

- no piece of the model holds a space behind another character, so that nothing merges over the cut: merges, and the
  search for user-defined pieces, then go on at both sides as if the other were not there; and
- no normalization rule reaches over the space, makes a space, or makes nothing of a character beside it.

A space beside U+2581 is no single one: to the model that is a space too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from salamandra_data.tokenization.backends.exactness import BPE
from salamandra_data.tokenization.backends.model_file import SPACE, UNUSED, read_model
from salamandra_data.tokenization.encoder import TokenRows

LONG_BYTES = 1 << 20
"""Texts above this size are cut."""

_PIECE_BYTES = 128 << 10
_PIECES_TOGETHER = 8  # encoded in one call, so that lists of ids stay short
_CUT = re.compile(rb"(?<=[^ ])(?<!\xe2\x96\x81) (?=[^ ])(?!\xe2\x96\x81)")
_SPACE_BEHIND = re.compile(f"[^{SPACE}]{SPACE}")

Encode = Callable[[Sequence[bytes]], TokenRows]


def encode_in_pieces(encode: Encode, texts: Sequence[bytes], model: Path) -> TokenRows:
    """What ``encode(texts)`` is, in memory in proportion to the texts and their ids.

    Args:
        encode: gives the ids of each of some texts.
        texts: UTF-8.
        model: SentencePiece model file. If texts may not be cut with it, ``encode`` gets them whole.
    """
    if max(map(len, texts), default=0) <= LONG_BYTES or not may_be_cut(model):
        return encode(texts)
    rows = []
    for text in texts:
        pieces = pieces_of(text, _PIECE_BYTES) if len(text) > LONG_BYTES else iter((text,))
        parts = []
        while together := list(islice(pieces, _PIECES_TOGETHER)):
            parts.append(encode(together).ids)
        rows.append(np.concatenate(parts))
    return TokenRows.joined(rows)


def pieces_of(text: bytes, piece_bytes: int) -> Iterator[bytes]:
    """Pieces of ``piece_bytes``, or of more up to the next place to cut; one space is lost between each two."""
    start = 0
    while cut := _CUT.search(text, start + piece_bytes):
        yield text[start : cut.start()]
        start = cut.end()
    yield text[start:]


@lru_cache(maxsize=2)
def may_be_cut(model: Path) -> bool:
    """Whether the ids of a text are those of its pieces, for every text."""
    values = read_model(model)
    trainer, normalizer = values.trainer, values.normalizer
    return (
        trainer.model_type == BPE
        and normalizer.add_dummy_prefix
        and normalizer.escape_whitespaces
        and not normalizer.remove_extra_whitespaces
        and not trainer.treat_whitespace_as_suffix
        and not any(
            kind == UNUSED or " " in piece or _SPACE_BEHIND.search(piece) for piece, kind, _ in values.pieces
        )
        and all(
            " " not in source and target and " " not in target and SPACE not in target
            for source, target in values.rules
        )
    )
