"""Errors of this room; all are ``ValueError`` so that the command line reports them as they are."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError


class HuggingFaceError(UserError):
    """An export, import or load that cannot be done as asked; the message says what would work."""


class TokenizerConversionError(HuggingFaceError):
    """A SentencePiece model that no Hugging Face fast tokenizer can reproduce id for id."""
