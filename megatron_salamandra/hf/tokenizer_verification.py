"""Comparing an exported tokenizer with the SentencePiece model it was made from."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sentencepiece

from megatron_salamandra.hf.optional_packages import require_package

_BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class TokenizerReport:
    """How an exported tokenizer compares with its SentencePiece model.

    Args:
        documents: texts compared.
        tokens: ids SentencePiece gave for them.
        different_ids: texts with other ids.
        different_ids_nfc: those of them that are in Unicode normal form C.
        different_text: texts whose ids decode to something else.
        first_difference: where the first text with other ids departs, or None.
    """

    documents: int
    tokens: int
    different_ids: int
    different_ids_nfc: int
    different_text: int
    first_difference: str | None

    @property
    def exact(self) -> bool:
        """Whether every compared text has the same ids and decodes to the same text."""
        return self.different_ids == 0 and self.different_text == 0

    def summary(self) -> str:
        """One or two lines for people."""
        compared = f"{self.documents:,} texts ({self.tokens:,} tokens)"
        if self.exact:
            return f"same ids and same decoded text as the SentencePiece model on {compared}"
        lines = [
            f"NOT the same as the SentencePiece model: of {compared}, {self.different_ids:,} have other ids "
            f"({self.different_ids_nfc:,} of these in Unicode NFC) and {self.different_text:,} decode differently"
        ]
        if self.first_difference:
            lines.append(f"first difference: {self.first_difference}")
        return "\n".join(lines)


def verify_tokenizer(directory: Path, model_path: Path, texts: Iterable[str]) -> TokenizerReport:
    """Compare the exported tokenizer, as ``AutoTokenizer`` loads it, with the SentencePiece model.

    Args:
        directory: an export with its tokenizer files.
        model_path: the SentencePiece model.
        texts: what to compare on; read once, a batch at a time.
    Raises:
        HuggingFaceError: transformers is not installed.
    """
    transformers = require_package("transformers", "checking the exported tokenizer")
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
    return TokenizerReport(documents, tokens, different_ids, different_ids_nfc, different_text, first)


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
