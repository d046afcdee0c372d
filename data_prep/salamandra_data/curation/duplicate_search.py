"""Finding duplicates: what of documents and paragraphs is hashed, and which of equal hashes comes first in the input.

Signatures are made by datatrove's steps. The name of a document's source is part of what is hashed, so documents of
different sources never look alike, unless duplicates are looked for across sources. Hashed are bytes: newer versions of
xxhash take no strings.

datatrove's own finders compare the numbers of documents in their files before those of the files, and keep whichever of
several near duplicates has the most others joined to it. Here the first in the order of the input stays.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig, SentenceDedupSignature
from datatrove.utils.text import ngrams
from datatrove.utils.word_tokenizers import WordTokenizer
from numpy.typing import NDArray

from salamandra_data.languages import NOT_PROSE

MINHASH = MinhashConfig()
"""14 buckets of 8 hashes of 5 words: two documents with 80 % of them in common are found with 92 %."""

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
        """Empty if all sources count as one."""
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
        """Hashes of five words in a row: [shingles, 1], uint64.

        Words are as they are written, with their figures, accents and capitals: statistics, laws and tables of code
        say what they say by these. datatrove's own step makes all numbers 0 and all letters plain and small.
        """
        words = (word[0] for word in WORD.finditer(unicodedata.normalize("NFC", text)))
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


_RECORDS = 1 << 22  # compared at once
_HASHES = 1 << 64

REPETITION = np.dtype(
    [("file", "<u4"), ("doc", "<u4"), ("part", "<u4"), ("first_file", "<u4"), ("first_doc", "<u4")]
)
"""A document or paragraph, by numbers, and the document in which it occurred first."""


def repetitions(
    signatures: Sequence[Path], record: np.dtype[Any], *, at_once: int = _RECORDS
) -> Iterator[NDArray[Any]]:
    """What repeats something that comes before it.

    Args:
        signatures: by number of file: records, sorted by hash.
        record: their type, with fields ``hash`` (uint64), ``doc`` and, for parts of documents, ``sent``.
        at_once: about how many records are in memory; the range of hashes is cut for that.
    Yields:
        Arrays of :data:`REPETITION`.
    """
    total = sum(path.stat().st_size for path in signatures) // record.itemsize
    ranges = max(1, -(-total // at_once))
    starts = [0] * len(signatures)
    for number in range(1, ranges + 1):
        end = _HASHES * number // ranges
        parts = []
        for file, path in enumerate(signatures):
            if not path.stat().st_size:
                continue
            records = np.memmap(path, dtype=record, mode="r")
            stop = bisect_left(records, end, lo=starts[file], key=lambda entry: int(entry["hash"]))
            parts.append((file, np.array(records[starts[file] : stop])))
            starts[file] = stop
        yield _repetitions(parts)


def _repetitions(parts: Sequence[tuple[int, NDArray[Any]]]) -> NDArray[Any]:
    count = sum(len(records) for _, records in parts)
    hashes = np.empty(count, dtype=np.uint64)
    found = np.zeros(count, dtype=REPETITION)
    place = 0
    for file, records in parts:
        here = slice(place, place + len(records))
        hashes[here], found["file"][here], found["doc"][here] = records["hash"], file, records["doc"]
        if "sent" in (records.dtype.names or ()):
            found["part"][here] = records["sent"]
        place += len(records)
    order = np.lexsort((found["part"], found["doc"], found["file"], hashes))
    hashes, found = hashes[order], found[order]
    repeats = np.zeros(count, dtype=bool)
    repeats[1:] = hashes[1:] == hashes[:-1]
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(count)))  # where each row's equals begin
    found["first_file"], found["first_doc"] = found["file"][first], found["doc"][first]
    return found[repeats]


def clusters(pairs: Sequence[Path]) -> NDArray[Any]:
    """The near duplicates to remove, in the order of the input, each with the first document of its cluster.

    Args:
        pairs: files of pairs of documents, each two pairs of numbers of file and document, uint32.
    Returns:
        Array of :data:`REPETITION`.
    """
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    for path in pairs:
        documents = np.fromfile(path, dtype="<u4").reshape(-1, 2, 2).astype(np.uint64)
        for one, other in ((documents[:, :, 0] << np.uint64(32)) | documents[:, :, 1]).tolist():
            first, second = sorted((root(one), root(other)))
            parent[second] = first
    rows = [(node, first) for node in sorted(parent) if (first := root(node)) != node]
    found = np.zeros(len(rows), dtype=REPETITION)
    nodes = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    found["file"], found["doc"] = nodes[:, 0] >> np.uint64(32), nodes[:, 0] & np.uint64(0xFFFFFFFF)
    found["first_file"], found["first_doc"] = (
        nodes[:, 1] >> np.uint64(32),
        nodes[:, 1] & np.uint64(0xFFFFFFFF),
    )
    return found
