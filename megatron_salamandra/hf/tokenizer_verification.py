"""Comparing an exported tokenizer with the SentencePiece model it was made from."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sentencepiece

from megatron_salamandra.foundation.packages import require
from megatron_salamandra.hf.sentencepiece_model import read_proto
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, find_inputs

_BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class TokenizerReport:
    """How an exported tokenizer compares with its SentencePiece model.

    Args:
        documents: texts compared as training reads them, control symbols being text.
        tokens: ids SentencePiece gave for them.
        different_ids: texts with other ids.
        different_ids_nfc: those of them that are in Unicode normal form C.
        different_text: texts whose ids decode to something else.
        chats: texts compared as a chat template writes them, control symbols being symbols.
        different_chats: chats with other ids, or whose ids decode to something else.
        first_difference: where the first text with other ids departs, or None.
    """

    documents: int
    tokens: int
    different_ids: int
    different_ids_nfc: int
    different_text: int
    chats: int
    different_chats: int
    first_difference: str | None

    @property
    def exact(self) -> bool:
        """Whether every compared text has the same ids and decodes to the same text."""
        return self.different_ids == self.different_text == self.different_chats == 0

    def summary(self) -> str:
        """One or two lines for people."""
        compared = f"{self.documents:,} texts ({self.tokens:,} tokens)"
        if self.exact:
            return (
                f"same ids and same decoded text as the SentencePiece model on {compared}, and on {self.chats:,} "
                "chats with control symbols"
            )
        lines = [
            f"NOT the same as the SentencePiece model: of {compared}, {self.different_ids:,} have other ids "
            f"({self.different_ids_nfc:,} of these in Unicode NFC) and {self.different_text:,} decode differently; "
            f"of {self.chats:,} chats with control symbols {self.different_chats:,} differ"
        ]
        if self.first_difference:
            lines.append(f"first difference: {self.first_difference}")
        return "\n".join(lines)


def verify_tokenizer(directory: Path, model_path: Path, texts: Iterable[str]) -> TokenizerReport:
    """Compare the exported tokenizer, as ``AutoTokenizer`` loads it, with the SentencePiece model.

    Both ways in which users load it are compared: as it is, on ``texts``; and with ``split_special_tokens=False``, on
    built-in chats.

    Args:
        directory: an export with its tokenizer files.
        model_path: the SentencePiece model.
        texts: what to compare on; read once, a batch at a time.
    Raises:
        MissingPackage: transformers is not installed.
    """
    transformers = require("transformers", extra="hf", purpose="checking the exported tokenizer")
    exported = transformers.AutoTokenizer.from_pretrained(str(directory))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    documents = tokens = different_ids = different_ids_nfc = different_text = 0
    first: str | None = None
    for batch in _batches(texts):
        expected: list[list[int]] = processor.encode(batch)
        found: list[list[int]] = exported(batch, verbose=False)["input_ids"]
        for text, ids, other_ids in zip(batch, expected, found, strict=True):
            documents += 1
            tokens += len(ids)
            if ids != other_ids:
                different_ids += 1
                different_ids_nfc += unicodedata.is_normalized("NFC", text)
                first = first or _describe_difference(processor, exported, ids, other_ids)
            different_text += exported.decode(ids) != processor.decode(ids)
    reference = ChatReference(model_path)
    chat_tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), split_special_tokens=False)
    chats = different_chats = 0
    for chat in chat_texts(reference.symbols):
        chats += 1
        ids = reference.encode(chat)
        other_ids = chat_tokenizer(chat, verbose=False)["input_ids"]
        if ids != other_ids:
            first = first or _describe_difference(processor, exported, ids, other_ids)
        different_chats += ids != other_ids or chat_tokenizer.decode(ids) != reference.decode(ids)
    return TokenizerReport(
        documents,
        tokens,
        different_ids,
        different_ids_nfc,
        different_text,
        chats,
        different_chats,
        first,
    )


class ChatReference:
    """What a text with control symbols should become, by SentencePiece alone.

    The symbols become their ids; what is between them is encoded by the model. Only a text's beginning gets the word
    boundary that SentencePiece puts in front, since a control symbol does not end a word. This is what
    transformers' ``LlamaTokenizer`` does without ``legacy``, the class of the published models.
    """

    def __init__(self, model_path: Path) -> None:
        self._begin = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
        proto = read_proto(model_path)
        proto.normalizer_spec.add_dummy_prefix = False
        self._inside = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        kinds = type(proto.pieces[0])
        special = (kinds.CONTROL, kinds.UNKNOWN)
        self._ids = {
            piece.piece: number for number, piece in enumerate(proto.pieces) if piece.type in special
        }
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Control symbols of the model, and the unknown symbol."""
        return tuple(self._ids)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""
        beginning, *rest = self._pattern.split(text)
        ids = list(self._begin.encode(beginning))
        for symbol, between in zip(rest[::2], rest[1::2], strict=True):
            ids += [self._ids[symbol], *self._inside.encode(between)]
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, control symbols written out."""
        names = {number: symbol for symbol, number in self._ids.items()}
        text, run, processor = "", list[int](), self._begin
        for number in ids:
            if number not in names:
                run.append(number)
                continue
            text += processor.decode(run) + names[number]
            run, processor = [], self._inside
        return text + str(processor.decode(run))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH_DOCUMENTS)):
        yield batch


def _describe_difference(processor: Any, exported: Any, ids: list[int], other_ids: list[int]) -> str:
    common = 0
    while common < min(len(ids), len(other_ids)) and ids[common] == other_ids[common]:
        common += 1
    expected = [processor.id_to_piece(number) for number in ids[common : common + 6]]
    found = exported.convert_ids_to_tokens(other_ids[common : common + 6])
    return f"after {common} equal tokens SentencePiece has {expected}, the exported tokenizer {found}"


_FRAGMENTS = (
    *"aàáâãäåæbcçčdđeèéêëęfgğhiìíîïjklłmnñoòóôõöøœpqrsšßtuùúûüvwxyýzž",
    *"абвгдежзиклмнопрстуфхцчшщъыьэюяђњќїєґ",
    *"αβγδεζηθλμξπρστφχψω",
    *"0123456789.,;:!?¿¡'\"«»()[]{}<>/\\|@#$%&*+-=_^~`°·",
    *(
        "l·l",
        "'",
        "\u2019",
        "the",
        "ción",
        "ung",
        "что",
        "και",
        "日本",
        "한국어",
        "العربية",
        "😀",
        "\u200d",
        "\ufeff",
    ),
    *(" ", " ", " ", "  ", "   ", " " * 5, " " * 24, " " * 25, " " * 60),
    *(
        "\n",
        "\n",
        "\n\n",
        "\n\n\n",
        "\n\n\n\n",
        "\t",
        "\t\t",
        "\t" * 6,
        "\t" * 7,
        "\r",
        "\r\n",
        "\\r",
        "\\n",
        "\x00",
    ),
    *("\u00a0", "\u3000", "\u2009", "\u2028", "\u2581", "\u2581\u2581"),
    *(
        "<unk>",
        "<s>",
        "</s>",
        "<pad>",
        "<|im_start|>",
        "<|im_end|>",
        "<|reserved_token_7|>",
        "<0x0A>",
        "<0x41>",
    ),
    *("aaa", "----", "====", "....", "111", "!!", "def f(x):\n    return x", "http://example.org/"),
)


def probe_texts(count: int = 4000, seed: int = 20) -> Iterator[str]:
    """Texts that tell tokenizers apart: edge cases, then random mixes of them, all in NFC.

    Deterministic for a seed.
    """
    yield ""
    for fragment in _FRAGMENTS:
        yield unicodedata.normalize("NFC", fragment)
    chance = random.Random(seed)
    for _ in range(count):
        mix = "".join(chance.choices(_FRAGMENTS, k=chance.randint(1, 24)))
        yield unicodedata.normalize("NFC", mix)


def chat_texts(symbols: Sequence[str], count: int = 400, seed: int = 21) -> Iterator[str]:
    """Texts with control symbols in them, at the beginning, at the end, side by side and between any probe text.

    Args:
        symbols: control symbols of the model.
    """
    yield from ("".join(f"{symbol}user\nhola{symbol}\n" for symbol in symbols[-3:]), *symbols[:8])
    yield f"a{symbols[-1]}b {symbols[-1]} c{symbols[-1]}{symbols[0]}  d"
    chance = random.Random(seed)
    texts = list(probe_texts(count, seed))
    for _ in range(count):
        parts = [chance.choice((chance.choice(texts), chance.choice(symbols))) for _ in range(6)]
        yield unicodedata.normalize("NFC", "".join(parts))


def document_texts(paths: Sequence[Path], text_key: str = "text") -> Iterator[str]:
    """The texts of all documents in ``paths``: files, directories or glob patterns.

    Args:
        text_key: key of the text in JSON lines and Parquet. Malformed lines are passed over, as
            tokenising them is.
    Raises:
        DataError: a path holds no readable input; raised on calling, before any text is read.
    """
    keys = DocumentKeys(text=text_key, language="any")
    files = [DocumentFile(path, keys) for path in find_inputs(paths)]
    return (document.text.decode() for file in files for document in file if isinstance(document, Document))
