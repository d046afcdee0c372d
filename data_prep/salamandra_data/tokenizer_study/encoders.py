"""Tokenizers to compare, whatever library they are of: counts of tokens, and of those that are only bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from salamandra_data.errors import DataError
from salamandra_data.sentencepiece_file import open_sentencepiece

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_FIRST_PRINTABLE = 0x20
_THREADS = 2


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of some text; ``fallback`` of them spell a character in bytes or stand for an unknown one.

    ``fallback`` is None for a tokenizer that falls back on nothing, because all of its tokens are of bytes.
    """

    tokens: int
    fallback: int | None


class StudiedTokenizer(Protocol):
    """A tokenizer under a name, as a study sees it."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    def count(self, texts: Sequence[str]) -> TokenCounts:
        """Encode the texts, each for itself, without special tokens."""
        ...


def named_path(entry: str) -> tuple[str | None, Path]:
    """Name and path out of ``PATH`` or ``NAME=PATH``; what exists as a path is one, whatever is in its name."""
    name, separator, place = entry.partition("=")
    return (name, Path(place)) if separator and not Path(entry).exists() else (None, Path(entry))


def open_tokenizer(path: Path, name: str | None = None) -> StudiedTokenizer:
    """A SentencePiece ``.model``, or a Hugging Face ``tokenizer.json``.

    A directory stands for the ``tokenizer.model`` or ``tokenizer.json`` in it. Without a name, the file is called
    after its directory if its own name says nothing.

    Raises:
        DataError: no such file, a format that is neither, or a package that is missing.
    """
    if path.is_dir():
        inside = [path / file for file in ("tokenizer.model", "tokenizer.json") if (path / file).is_file()]
        if not inside:
            raise DataError(f"{path}: holds neither tokenizer.model nor tokenizer.json")
        path = inside[0]
    if not path.is_file():
        raise DataError(f"{path}: no such tokenizer")
    if name is None:
        name = path.resolve().parent.name if path.stem == "tokenizer" else path.stem
    return _HuggingFace(name, path) if path.suffix == ".json" else _SentencePiece(name, path)


class _SentencePiece:
    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._processor = open_sentencepiece(path)
        self.vocab_size = len(self._processor)
        self._is_fallback = _fallback_ids(
            {self._processor.id_to_piece(number): number for number in range(self.vocab_size)},
            self._processor.unk_id(),
        )

    def count(self, texts: Sequence[str]) -> TokenCounts:
        return _counts(
            self._processor.encode(list(texts), out_type=int, num_threads=_THREADS), self._is_fallback
        )


class _HuggingFace:
    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise DataError(
                f"{path}: reading it needs the package tokenizers\n  pip install 'megatron-salamandra[hf]'"
            ) from error
        try:
            contents = json.loads(path.read_bytes())
            model = contents["model"]
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise DataError(
                f"{path}: not a tokenizer.json: {why}\n"
                "  name a SentencePiece model, or the tokenizer.json that holds model and vocabulary together"
            ) from error
        # The file may hold what its owner cut and filled batches with; a text is to be counted as it is.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=0) + 1
        unknown = vocabulary.get(model.get("unk_token") or "", model.get("unk_id"))
        pieces = vocabulary if model.get("byte_fallback") else {}
        self._is_fallback = (
            None
            if any(_turns_bytes_to_characters(contents.get(step)) for step in ("normalizer", "pre_tokenizer"))
            else _fallback_ids(pieces, -1 if unknown is None else unknown, self.vocab_size)
        )

    def count(self, texts: Sequence[str]) -> TokenCounts:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return _counts([one.ids for one in encoded], self._is_fallback)


def _turns_bytes_to_characters(step: dict[str, Any] | None) -> bool:
    """Whether a step before the model of a ``tokenizer.json`` writes each byte as a character of its own."""
    if step is None:
        return False
    inner = step.get("normalizers", step.get("pretokenizers", []))
    return step["type"] == "ByteLevel" or any(map(_turns_bytes_to_characters, inner))


def _fallback_ids(pieces: dict[str, int], unknown: int, size: int | None = None) -> NDArray[np.bool_]:
    """[vocabulary] whether an id is a byte or the unknown token.

    Control characters do not count: tokenizers that keep newlines and tabs have no other piece for them.
    """
    flags = np.zeros(len(pieces) if size is None else size, dtype=np.bool_)
    for piece, number in pieces.items():
        if (match := _BYTE_PIECE.fullmatch(piece)) and int(match[1], 16) >= _FIRST_PRINTABLE:
            flags[number] = True
    if unknown >= 0:
        flags[unknown] = True
    return flags


def _counts(encoded: list[list[int]], is_fallback: NDArray[np.bool_] | None) -> TokenCounts:
    tokens = sum(map(len, encoded))
    if is_fallback is None:
        return TokenCounts(tokens, None)
    fallback = sum(int(is_fallback[np.asarray(ids, dtype=np.int64)].sum()) for ids in encoded)
    return TokenCounts(tokens, fallback)
