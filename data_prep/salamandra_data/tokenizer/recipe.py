"""The published Salamandra tokenizer recipe: options, symbols, and the ids they take.

====== =======================================================
ids    content
====== =======================================================
0..3   ``<unk>``, ``<s>``, ``</s>`` (end of document), ``<pad>``
4..5   ``<|im_start|>``, ``<|im_end|>``
6..103 ``<|reserved_token_1|>`` to ``<|reserved_token_98|>``
104    backslash and r, two characters
105..  runs of 2 to 24 spaces
128..  runs of 2 to 6 tabs
133..  runs of 2 and 3 newlines
135..  bytes 0x00 to 0xFF
391..  pieces learnt from text
====== =======================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPACE = "\u2581"
"""What SentencePiece writes for a space. Runs of literal spaces would make pieces that are never produced."""

CONTROL_SYMBOLS: tuple[str, ...] = (
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|reserved_token_{number}|>" for number in range(1, 99)),
)

USER_DEFINED_SYMBOLS: tuple[str, ...] = (
    "\\r",  # the recipe's YAML holds this unquoted, so it is a backslash and an r, not a carriage return
    *(SPACE * count for count in range(2, 25)),
    *("\t" * count for count in range(2, 7)),
    *("\n" * count for count in range(2, 4)),
)

EOD_ID = 2
PAD_ID = 3
BYTE_PIECES = 256
FIRST_USER_DEFINED_ID = 4 + len(CONTROL_SYMBOLS)
FIRST_BYTE_ID = FIRST_USER_DEFINED_ID + len(USER_DEFINED_SYMBOLS)
FIRST_BPE_ID = FIRST_BYTE_ID + BYTE_PIECES

MAX_SENTENCE_BYTES = 35_145_728

RESERVED = "\u2585".encode()
"""What SentencePiece's trainer uses for an unknown character; it passes over every line that holds one."""


def is_learnt_from(line: bytes) -> bool:
    """Whether SentencePiece's trainer takes a line: it is not empty, not too long and without :data:`RESERVED`."""
    return 0 < len(line) <= MAX_SENTENCE_BYTES and RESERVED not in line


def trainer_options(vocab_size: int, normalization_rules: Path) -> dict[str, Any]:
    """Arguments for ``SentencePieceTrainer.train``; what is not named keeps SentencePiece's default."""
    return {
        "model_type": "bpe",
        "vocab_size": vocab_size,
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_tsv": str(normalization_rules),
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "max_sentence_length": MAX_SENTENCE_BYTES,
        "pad_id": PAD_ID,
        "control_symbols": list(CONTROL_SYMBOLS),
        "user_defined_symbols": list(USER_DEFINED_SYMBOLS),
    }
