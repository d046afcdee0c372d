"""Which models and which texts a fast encoder may be given, so that its ids are SentencePiece's.

Fast encoders skip SentencePiece's normalization. So the model must be one whose normalization leaves text in NFC as
it is, and only text in NFC goes to them; forms such as NFC are closed under taking parts, so no rule whose source is
not in NFC applies anywhere in such a text. What is left of SentencePiece, and done by them, is: a space in front, a
U+2581 for each space, user-defined pieces cut out first, and merges by score. A U+2581 in the text itself would be
taken for a space by one and not by the other, and NUL ends strings in some libraries; both are rare, and go to
SentencePiece.
"""

from __future__ import annotations

import unicodedata

from salamandra_data.tokenization.backends.backend import BackendUnavailable
from salamandra_data.tokenization.backends.model_file import SPACE, UNUSED, ModelFile

BPE = 2
"""SentencePiece's number of this kind of model."""


def may_be_fast(text: str) -> bool:
    """Whether the text, unchanged, is what SentencePiece would merge: not empty, in NFC, without U+2581 and NUL."""
    in_nfc = text.isascii() or unicodedata.is_normalized("NFC", text)
    return in_nfc and bool(text) and "\0" not in text and SPACE not in text


def check_model(model: ModelFile) -> None:
    """Refuse a model whose ids a fast encoder cannot give.

    Raises:
        BackendUnavailable: naming the property of the model that stands against it.
    """
    trainer, normalizer = model.trainer, model.normalizer
    kinds = {piece: kind for piece, kind, _ in model.pieces}
    for refused, reason in (
        (trainer.model_type != BPE, "it is not BPE"),
        (not trainer.byte_fallback, "it has no byte fallback"),
        (trainer.treat_whitespace_as_suffix, "its spaces are at the end of words"),
        (normalizer.remove_extra_whitespaces, "it removes extra spaces"),
        (not normalizer.escape_whitespaces, "it does not escape spaces"),
        (len(kinds) != len(model.pieces), "two of its pieces are the same"),
        (UNUSED in kinds.values(), "some of its pieces are unused"),
        (
            any(" " in piece for piece in model.user_defined()),
            "a user-defined piece holds a space, which is written U+2581 in a model",
        ),
        (not set("".join(model.scores())) <= kinds.keys(), "a character of a piece is not a piece"),
    ):
        if refused:
            raise BackendUnavailable(f"the model cannot be encoded exactly: {reason}")
    for source, _ in model.rules:
        if unicodedata.is_normalized("NFC", source):
            raise BackendUnavailable(
                f"the model cannot be encoded exactly: it rewrites {source!r}, which is in NFC"
            )
