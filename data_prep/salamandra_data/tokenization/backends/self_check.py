"""Trying a fast encoder on difficult texts before it is trusted with a run."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from salamandra_data.tokenization.backends.backend import FastBackend
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.backends.model_file import SPACE, ModelFile
from salamandra_data.tokenization.encoder import Encoder

_TEXTS_OF_PIECES = 400
_PIECES_PER_TEXT = 12
_DIFFICULT = (
    "a",
    " ",
    "\n",
    "  two  spaces   three    four ",
    " " * 100,
    "\t\ttabs\t\t\t\t\t\t\tand\n\n\n\n\n\nnewlines\r\n\r\n",
    "def f(x):\n    if x:\n\treturn [x ** 2, 'é', \"ü\"]  # ...\n\n\n",
    "<s>text</s> <unk> <pad> <|im_start|>user\nhi<|im_end|> <0x0A> <|reserved_token_1|>",
    "0123456789 3.14159 1,000,000 2024-01-01T00:00:00Z",
    "Això és català: l·l, ç, «cometes» — i punts… L'Hospitalet",
    "Καλημέρα κόσμε. Привіт, світе! Здравствуйте. Ñandú, señor; ¿qué tal?",
    "Ġenwin; Þórr; Łódź; Iñtërnâtiônàlizætiøn; ﬁ ﬀ ﬃ ½ ² ㎏ ™ Ⅳ",
    "日本語のテキスト、中文文本。한국어 텍스트 ภาษาไทย हिन्दी עברית العربية",
    "😀👩‍👩‍👧‍👦🏳️‍🌈🇪🇸 \u200b\u200d\ufeff\u00a0\u2028\u3000\u00ad",
    "\U0010ffff\U000e0001\ue000\ufffd\x01\x7f\x80",
    "=" * 77 + "-" * 50 + "_" * 33 + "." * 21 + "a" * 200 + "ab" * 99 + "ha" * 61,
    "x" * 3000,
)


def first_difference(reference: Encoder, backend: FastBackend, model: ModelFile) -> str | None:
    """A text that the two encode differently; None if there is none among the difficult ones.

    Tried are fixed texts, and texts made of the model's own pieces, the same at every call.
    """
    texts = [text for text in (*_DIFFICULT, *_texts_of_pieces(model)) if may_be_fast(text)]
    raw = [text.encode() for text in texts]
    expected, found = reference.encode_rows(raw).split(), backend.encode(raw).split()
    for text, right, other in zip(texts, expected, found, strict=True):
        if not np.array_equal(right, other):
            return text
    return None


def _texts_of_pieces(model: ModelFile) -> Iterator[str]:
    """Random pieces one after the other, and single pieces repeated: what merges can go wrong on."""
    pieces = [piece.replace(SPACE, " ") for piece in model.scores()]
    chance = random.Random(0)
    for _ in range(_TEXTS_OF_PIECES):
        yield "".join(chance.choices(pieces, k=_PIECES_PER_TEXT))
        yield chance.choice(pieces) * chance.randint(2, 9)
