"""Errors of this room."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE


class HuggingFaceError(UserError):
    """An export, import or load that cannot be done as asked; the message says what would work."""


class TokenizerConversionError(HuggingFaceError):
    """A SentencePiece model that no Hugging Face fast tokenizer can reproduce id for id."""


class OptionError(HuggingFaceError):
    """A value that an option cannot have."""

    exit_code = EXIT_USAGE
