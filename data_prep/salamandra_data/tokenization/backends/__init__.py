"""Fast encoders that give SentencePiece's ids: gigatoken and kitoken, both optional.

SentencePiece is the reference. Which models and texts a fast encoder may be given is in ``exactness.py``; it is tried
on difficult texts before a run (``self_check.py``), and a share of the documents is encoded by SentencePiece as well
while it works (``guarded_encoder.py``).
"""

from __future__ import annotations

from salamandra_data.tokenization.backends.backend import FastBackend
from salamandra_data.tokenization.backends.guarded_encoder import GuardedEncoder, TextBatch
from salamandra_data.tokenization.backends.selection import (
    AUTO,
    ENCODERS,
    EncoderChoice,
    choose_encoder,
    guarded_encoder,
)

__all__ = [
    "AUTO",
    "ENCODERS",
    "EncoderChoice",
    "FastBackend",
    "GuardedEncoder",
    "TextBatch",
    "choose_encoder",
    "guarded_encoder",
]
