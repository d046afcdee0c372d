"""Texts that are hard to encode, at random and the same at every call."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from salamandra_data.tokenization.backends.model_file import SPACE, read_model

LANGUAGE = "hard"
LONE_SURROGATES = ("\ud800", "in \udc80 the middle")
_SEED = 11
_LONG = 1_200_000  # characters: above the size from which texts are encoded in pieces
_ALPHABETS = (
    "=-", "ab", "aab ", " \n", "\t \n", "01", "<s>/|imstart_end", "-_=~*#", "à`e´ ", "αβγ ", "\\rn", "\r\n",
    "xyz\u0300\u0301", "e\u0301o\u0323\u0302", "가각\u1100\u1161\u11a8", "กาำ่", "\x00a", "\u2581 a", "\ud7ff\ue000",
    "😀\u200d👩🏳\ufe0f", "नमस्ते ",
)  # fmt: skip


def hard_texts(model: Path) -> Iterator[str]:
    """Few letters in many orders, pieces of the model in any order, any characters of Unicode; without end."""
    chance = random.Random(_SEED)
    values = read_model(model)
    pieces = [piece.replace(SPACE, " ") for piece in values.scores()]
    symbols = [piece.replace(SPACE, " ") for piece in values.user_defined()]
    while True:
        kind = chance.randrange(6)
        if kind == 0:
            yield "".join(chance.choices(chance.choice(_ALPHABETS), k=chance.randint(1, 60)))
        elif kind == 1:
            yield "".join(chance.choices(pieces, k=chance.randint(1, 20)))
        elif kind == 2:
            yield chance.choice(pieces) * chance.randint(1, 12)
        elif kind == 3:
            yield "".join(
                chance.choice(symbols if chance.random() < 0.3 else pieces)
                for _ in range(chance.randint(1, 20))
            )
        else:
            last = 0x110000 if kind == 4 else 0x3000
            codes = (chance.randrange(last) for _ in range(chance.randint(1, 30)))
            yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def long_texts(model: Path) -> Iterator[str]:
    """Words of a megabyte, and texts long enough to be cut: with and without places for that, and in all alphabets."""
    yield "ab" * (_LONG // 2)
    yield "語言" * (_LONG // 2)
    yield "\r\n" * (_LONG // 2)
    chance = random.Random(_SEED)
    pieces = [piece.replace(SPACE, " ") for piece in read_model(model).scores()]
    yield "".join(chance.choices(pieces, k=_LONG // 4))
    for alphabet in _ALPHABETS:
        yield "".join(chance.choices(alphabet + " ", k=_LONG))


def write_hard_documents(path: Path, model: Path, count: int) -> int:
    """Write ``count`` hard texts, the long ones and two lone surrogates as JSON lines; returns the number of lines."""
    texts = (text for text in hard_texts(model) if text)
    lines = [*LONE_SURROGATES, *long_texts(model), *islice(texts, count)]
    with path.open("w", encoding="utf-8") as stream:
        for text in lines:
            stream.write(json.dumps({"text": text, "language": LANGUAGE}) + "\n")
    return len(lines)
