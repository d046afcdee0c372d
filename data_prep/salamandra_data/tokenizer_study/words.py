"""What counts as a word: the definition by which BSC measured the Salamandra tokenizers.

Their pattern is ``[ ]?[\\p{L}]+|[ ]?[^\\p{L}\\p{N} \\t\\n]+|[ ]+|[\\t]+|[\\n]+|\\d{1}``
(github.com/langtech-bsc/langtech_tokenizers): a run of letters or of signs, each with the space before it, a run of
spaces, tabs or newlines, or one digit. It counts what a tokenizer could keep whole, so one token per word is the least.

The standard library has no ``\\p``; its ``\\w`` is letters, numbers and the underscore, so letters are ``\\w`` without
the numbers, which are listed from the Unicode tables.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache


def count_words(text: str) -> int:
    """How many words a text has: runs of letters, of signs and of blanks, and single digits."""
    return sum(1 for _ in word_pattern().finditer(text))


@cache
def word_pattern() -> re.Pattern[str]:
    """The pattern of one word."""
    other_numbers = "".join(
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Nl", "No")
    )
    letters = rf"[^\W\d_{other_numbers}]+"
    signs = r"(?:(?![ \t\n])[\W_])+"
    return re.compile(rf" ?{letters}| ?{signs}| +|\t+|\n+|\d")
