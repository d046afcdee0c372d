"""What of documents and paragraphs is hashed to find duplicates, by datatrove's signature steps.

The name of a document's source is part of what is hashed, so documents of different sources never look alike, unless
duplicates are looked for across sources. Hashed are bytes: newer versions of xxhash take no strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig, SentenceDedupSignature
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import WordTokenizer

from salamandra_data.curation.settings import NOT_PROSE

MINHASH = MinhashConfig()
"""14 buckets of 8 hashes of 5 words: two documents with 80 % in common are found with 92 %."""

WORD = re.compile(r"\w+")
_LEAST_PARAGRAPH_CHARACTERS = 20
_MOST_PARAGRAPHS = 1 << 16  # datatrove numbers them in 16 bits
_SHINGLES = 1 << 12  # signed at once


class AnyLanguageWords(WordTokenizer):
    """Words are runs of letters and digits, which serves comparison in every European language."""

    def word_tokenize(self, text: str) -> list[str]:
        """As datatrove's tokenizers."""
        return WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """As datatrove's tokenizers: lines."""
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """As datatrove's tokenizers: the whole text."""
        return [(0, len(text))]


@dataclass(frozen=True)
class SourceName:
    """The name of a document's source, for hashing."""

    across_sources: bool

    def of(self, document: Document) -> str:
        """Empty if sources are not to be told apart."""
        return "" if self.across_sources else str(document.metadata.get("source") or "")


@dataclass(frozen=True)
class Content:
    """What of a document must be equal for it to be an exact duplicate."""

    source: SourceName

    def __call__(self, document: Document) -> bytes:
        return f"{self.source.of(document)}\0{document.text.strip()}".encode()


class NearSignature(MinhashDedupSignature):
    """Shingles that hold the name of the document's source."""

    def __init__(self, folder: Path, source: SourceName) -> None:
        super().__init__(str(folder), MINHASH, language=AnyLanguageWords())
        self._source, self._current = source, ""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """As datatrove's steps."""
        super().run(self._noting_source(data), rank, world_size)

    def _noting_source(self, data: Any) -> Iterator[Document]:
        for document in data:
            self._current = self._source.of(document)
            yield document

    def get_shingles(self, text: str) -> Any:
        """Hashes of five words in a row: [shingles, 1], uint64."""
        words = (word[0] for word in WORD.finditer(simplify_text(text, self.config.norm_config)))
        shingles = (
            f"{self._current}\0{' '.join(shingle)}".encode() for shingle in ngrams(words, self.config.n_grams)
        )
        return np.fromiter(map(self._hash_func, shingles), dtype=np.uint64).reshape((-1, 1))

    def get_signature(self, shingles: Any) -> list[list[int]]:
        """The smallest of each hash, by bucket."""
        # The smallest of the smallest of some: all at once, each shingle of a long text would take 900 bytes.
        sign = super().get_signature
        parts = [sign(shingles[start : start + _SHINGLES]) for start in range(0, len(shingles), _SHINGLES)]
        return [[min(column) for column in zip(*bucket, strict=True)] for bucket in zip(*parts, strict=True)]


class ParagraphSignature(SentenceDedupSignature):
    """Paragraphs of prose that are long enough to say something; the first so many of a document."""

    def __init__(self, folder: Path, source: SourceName) -> None:
        super().__init__(str(folder), config=paragraph_config(), language=AnyLanguageWords())
        self._source = source

    def get_hashes(self, doc: Document, doc_idx: int) -> list[tuple[int, int, int]]:
        """Hash, document and line of each."""
        if doc.metadata["language"] in NOT_PROSE:
            return []
        source = self._source.of(doc)
        lines = doc.text.splitlines()[:_MOST_PARAGRAPHS]
        return [
            (self.hash_fc(f"{source}\0{line.strip()}".encode()), doc_idx, number)
            for number, line in enumerate(lines)
            if len(line.strip()) >= _LEAST_PARAGRAPH_CHARACTERS
        ]


def paragraph_config() -> Any:
    """One line at a time."""
    return SentDedupConfig(n_sentences=1, split_sentences=False, min_doc_words=0, min_num_sentences=0)
