"""datatrove's three deduplications, told what a source is and what a word is in any language.

The name of a document's source is part of what is hashed, so documents of different sources never look alike, unless
duplicates are looked for across sources. Hashed are bytes: newer versions of xxhash take no strings.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.sentence_dedup import (
    SentDedupConfig,
    SentenceDedupFilter,
    SentenceDedupSignature,
    SentenceFindDedups,
)
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import WordTokenizer

from salamandra_data.curation.removals import Removals, Tally
from salamandra_data.curation.settings import NOT_PROSE

MINHASH = (
    MinhashConfig()
)  # 14 buckets of 8 hashes of 5 words: two documents with 80 % in common are found with 92 %
_LEAST_PARAGRAPH_CHARACTERS = 20
_MOST_PARAGRAPHS = 1 << 16  # datatrove numbers them in 16 bits
_SHINGLES = 1 << 12  # signed at once
_TOO_LITTLE = "too_little"
_WORD = re.compile(r"\w+")


class AnyLanguageWords(WordTokenizer):
    """Words are runs of letters and digits, which serves comparison in every European language."""

    def word_tokenize(self, text: str) -> list[str]:
        """As datatrove's tokenizers."""
        return _WORD.findall(text)

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
class _Content:
    source: SourceName

    def __call__(self, document: Document) -> bytes:
        return f"{self.source.of(document)}\0{document.text.strip()}".encode()


class _NearSignature(MinhashDedupSignature):
    """Shingles that hold the name of the document's source."""

    def __init__(self, folder: Path, source: SourceName) -> None:
        super().__init__(str(folder), MINHASH, language=AnyLanguageWords())
        self._source, self._current = source, ""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        super().run(self._noting_source(data), rank, world_size)

    def _noting_source(self, data: Any) -> Iterator[Document]:
        for document in data:
            self._current = self._source.of(document)
            yield document

    def get_shingles(self, text: str) -> Any:
        words = (word[0] for word in _WORD.finditer(simplify_text(text, self.config.norm_config)))
        shingles = (
            f"{self._current}\0{' '.join(shingle)}".encode() for shingle in ngrams(words, self.config.n_grams)
        )
        return np.fromiter(map(self._hash_func, shingles), dtype=np.uint64).reshape((-1, 1))

    def get_signature(self, shingles: Any) -> list[list[int]]:
        # The smallest of the smallest of some: all at once, each shingle of a long text would take 900 bytes.
        sign = super().get_signature
        parts = [sign(shingles[start : start + _SHINGLES]) for start in range(0, len(shingles), _SHINGLES)]
        return [[min(column) for column in zip(*bucket, strict=True)] for bucket in zip(*parts, strict=True)]


class _ParagraphSignature(SentenceDedupSignature):
    """Paragraphs of prose that are long enough to say something; the first so many of a document."""

    def __init__(self, folder: Path, source: SourceName) -> None:
        super().__init__(str(folder), config=paragraph_config(), language=AnyLanguageWords())
        self._source = source

    def get_hashes(self, doc: Document, doc_idx: int) -> list[tuple[int, int, int]]:
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


@dataclass(frozen=True)
class Duplicates:
    """The steps of one kind of deduplication, in a directory of their own.

    Attributes:
        kind: ``exact``, ``near`` or ``paragraphs``.
        folder: for signatures and findings.
        source: tells sources apart.
        min_words: as in the settings.
    """

    kind: str
    folder: Path
    source: SourceName
    min_words: int

    def _exact(self) -> Any:
        return ExactDedupConfig(content_getter=_Content(self.source))

    @property
    def finding_tasks(self) -> int:
        """How many tasks look for pairs."""
        return int(MINHASH.num_buckets) if self.kind == "near" else 1

    def signature(self) -> Any:
        """The step that hashes the documents of a file."""
        folder = self.folder / "signatures"
        if self.kind == "exact":
            return ExactDedupSignature(str(folder), self._exact())
        return (_NearSignature if self.kind == "near" else _ParagraphSignature)(folder, self.source)

    def find(self, task: int) -> None:
        """Look for equal hashes among those of all files, which are open at once."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        signatures, pairs = str(self.folder / "signatures"), str(self.folder / "pairs")
        if self.kind == "exact":
            ExactFindDedups(signatures, pairs, self._exact()).run(None, task, 1)
        elif self.kind == "near":
            MinhashDedupBuckets(signatures, pairs, config=MINHASH).run(None, task, self.finding_tasks)
        else:
            SentenceFindDedups(signatures, pairs, config=paragraph_config()).run(None, task, 1)

    def cluster(self) -> None:
        """Decide which of several near duplicates stays."""
        MinhashDedupCluster(str(self.folder / "pairs"), str(self.folder / "removed"), config=MINHASH).run(
            None, 0, 1
        )

    def filter(self, removals: Removals, repeated: dict[str, Tally]) -> Any:
        """The step that removes what was found from the documents of a file, and counts repeated paragraphs."""
        if self.kind == "exact":
            return ExactDedupFilter(str(self.folder / "pairs"), self._exact(), removals)
        if self.kind == "near":
            return MinhashDedupFilter(str(self.folder / "removed"), removals)
        return _ParagraphFilter(self.folder / "pairs", self.min_words, removals, repeated)


class _ParagraphFilter(SentenceDedupFilter):
    """Takes repeated paragraphs out, and counts them by language in ``repeated``."""

    def __init__(self, folder: Path, min_words: int, removals: Removals, repeated: dict[str, Tally]) -> None:
        super().__init__(str(folder), paragraph_config(), _WholeDocuments(removals), AnyLanguageWords())
        self._min_words, self._repeated = min_words, repeated

    def remove_dup_sentences(self, doc: Document, du_lines: Any) -> tuple[str, str]:
        kept, _ = super().remove_dup_sentences(doc, du_lines)
        if len(_WORD.findall(kept)) < self._min_words:
            doc.metadata[_TOO_LITTLE] = True
            return "", doc.text  # nothing left is datatrove's sign for a document to remove
        lost = len(doc.text.encode()) - len(kept.encode())
        self._repeated.setdefault(doc.metadata["language"], Tally()).add(len(du_lines), lost)
        return kept, doc.text


class _WholeDocuments:
    """datatrove also writes documents that lost a paragraph; of these, counts those that went as a whole."""

    def __init__(self, removals: Removals) -> None:
        self._removals = removals

    def __enter__(self) -> _WholeDocuments:
        return self

    def __exit__(self, *ended_with: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0) -> None:
        if document.metadata.get(_TOO_LITTLE):
            self._removals.write(document, rank)
