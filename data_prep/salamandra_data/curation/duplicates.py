"""The three deduplications: datatrove's signatures, pairs and filters, and the first of equals in between."""

from __future__ import annotations

import resource
import shutil
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    get_sig_dtype,
)
from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupFilter
from datatrove.pipeline.dedup.sentence_dedup import SentenceDedupFilter
from datatrove.utils.typeshelper import ExtensionHelperSD
from numpy.typing import NDArray

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.curation.counts import Removals, Tallies, Tally
from salamandra_data.curation.duplicate_search import (
    MINHASH,
    REPETITION,
    WORD,
    AnyLanguageWords,
    Content,
    NearSignature,
    ParagraphSignature,
    SourceName,
    clusters,
    paragraph_config,
    repetitions,
)

_PARAGRAPH = np.dtype([("hash", paragraph_config().hash_config.np_descr), ("doc", "<u4"), ("sent", "<u2")])
_LINE_BYTES = 8
_TOO_LITTLE = "too_little"


@dataclass(frozen=True)
class Duplicates:
    """The steps of one kind of deduplication, in a directory of their own.

    Attributes:
        kind: ``exact``, ``near`` or ``paragraphs``.
        folder: for signatures and findings.
        source: separates sources.
        min_words: as in the settings.
        lines: by which documents are named.
    """

    kind: str
    folder: Path
    source: SourceName
    min_words: int
    lines: DocumentLines

    def _exact(self) -> Any:
        return ExactDedupConfig(content_getter=Content(self.source))

    @property
    def finding_tasks(self) -> int:
        """How many tasks look for pairs."""
        return int(MINHASH.num_buckets) if self.kind == "near" else 1

    def sign(self, documents: Any, file: int, files: int) -> None:
        """Hash the documents of a file."""
        folder = self.folder / "signatures"
        step: Any
        if self.kind == "exact":
            step = ExactDedupSignature(str(folder), self._exact())
        else:
            step = (NearSignature if self.kind == "near" else ParagraphSignature)(folder, self.source)
        step.run(self.lines.recorded(documents, file), file, files)

    def find(self, task: int) -> None:
        """Look for equal hashes among those of all files."""
        signatures = self.folder / "signatures"
        if self.kind == "near":
            _allow_open_files()
            pairs = str(self.folder / "pairs")
            MinhashDedupBuckets(str(signatures), pairs, config=MINHASH).run(None, task, self.finding_tasks)
            return
        record = get_sig_dtype(self._exact().hash_config) if self.kind == "exact" else _PARAGRAPH
        self._keep(repetitions(sorted((signatures / "0000").iterdir()), record))

    def cluster(self) -> None:
        """Decide which of several near duplicates stays: the first."""
        self._keep(iter([clusters(sorted((self.folder / "pairs").iterdir()))]))

    def filter(self, file: int, removals: Removals, repeated: Tallies) -> Any:
        """The step that removes what was found from the documents of a file, and counts repeated paragraphs."""
        folder = str(self.folder / "removed")
        if self.kind == "paragraphs":
            return ParagraphFilter(self.folder / "removed", self.min_words, removals, repeated)
        naming = _NamingTheFirst(removals, self.lines, self._first_file(file))
        if self.kind == "exact":
            return ExactDedupFilter(folder, self._exact(), naming)
        return MinhashDedupFilter(folder, naming)

    def _first_file(self, file: int) -> Path:
        return self.folder / "first" / f"{file:06d}"

    def _keep(self, found: Iterator[NDArray[Any]]) -> None:
        """Leave what is to be removed as datatrove's filters expect it, and beside it where it occurred first."""
        for name in ("removed", "first"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "removed" / "0000").mkdir(parents=True)
        (self.folder / "first").mkdir()
        for block in found:
            for rows in _by_file(block):
                with open(self._first_file(int(rows["file"][0])), "ab") as stream:
                    stream.write(rows.tobytes())
        for path in sorted((self.folder / "first").iterdir()):
            rows = np.sort(np.fromfile(path, dtype=REPETITION), order=["doc", "part"])
            path.write_bytes(rows.tobytes())
            self._removed_file(int(path.name)).write_bytes(self._removed(rows))

    def _removed_file(self, file: int) -> Path:
        if self.kind == "near":
            return self.folder / "removed" / f"{file:06d}.remove"
        return self.folder / "removed" / "0000" / f"{file:05d}{ExtensionHelperSD.stage_2_duplicates}"

    def _removed(self, rows: NDArray[Any]) -> bytes:
        """What the filters read: numbers of documents, of paragraphs too."""
        if self.kind != "paragraphs":
            return rows["doc"].tobytes()
        removed = np.zeros(len(rows), dtype=_PARAGRAPH.descr[1:])
        removed["doc"], removed["sent"] = rows["doc"], rows["part"]
        return removed.tobytes()


def _by_file(block: NDArray[Any]) -> Iterator[NDArray[Any]]:
    block = block[np.argsort(block["file"], kind="stable")]
    starts = np.flatnonzero(np.diff(block["file"], prepend=-1))
    yield from np.split(block, starts[1:]) if len(block) else []


class _NamingTheFirst:
    """Stands where datatrove's filters expect a writer of excluded documents; says of each which one it repeats."""

    def __init__(self, removals: Removals, lines: DocumentLines, first: Path) -> None:
        self._removals, self._lines = removals, lines
        rows = np.fromfile(first, dtype=REPETITION) if first.exists() else np.zeros(0, dtype=REPETITION)
        self._firsts = iter(rows[["first_file", "first_doc"]].tolist())

    def __enter__(self) -> _NamingTheFirst:
        return self

    def __exit__(self, *ended_with: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0) -> None:
        """Count a document; they come in their order, as the rows of the file do."""
        document.metadata["detail"] = f"as {self._lines.name(*next(self._firsts))}"
        self._removals.write(document, rank)


def _allow_open_files() -> None:
    """As many as the system lets: datatrove has the signatures of all files open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True)
class DocumentLines:
    """Which lines the documents have that come into a stage, by their numbers there.

    Attributes:
        folder: holds them, a file for each input file.
        names: of the input files.
    """

    folder: Path
    names: Sequence[str]

    def recorded(self, documents: Iterable[Document], file: int) -> Iterator[Document]:
        """``documents`` of a file as they are; when the last has passed, their lines are written."""
        lines = array("Q")
        for document in documents:
            lines.append(int(document.id.rpartition(":")[2]))
            yield document
        atomic_write_bytes(self._path(file), lines.tobytes())

    def name(self, file: int, number: int) -> str:
        """What a document is called: the name of its file, and its line."""
        with open(self._path(file), "rb") as stream:
            stream.seek(_LINE_BYTES * number)
            line = int.from_bytes(stream.read(_LINE_BYTES), sys.byteorder)
        return f"{self.names[file]}:{line}"

    def _path(self, file: int) -> Path:
        return self.folder / f"{file:06d}"


class ParagraphFilter(SentenceDedupFilter):
    """Takes repeated paragraphs out, and counts them by language in ``repeated``."""

    def __init__(self, folder: Path, min_words: int, removals: Removals, repeated: Tallies) -> None:
        super().__init__(str(folder), paragraph_config(), _WholeDocuments(removals), AnyLanguageWords())
        self._min_words, self._repeated = min_words, repeated

    def remove_dup_sentences(self, doc: Document, du_lines: Any) -> tuple[str, str]:
        """What is left of a document without some of its lines, and what it was."""
        kept, _ = super().remove_dup_sentences(doc, du_lines)
        words = len(WORD.findall(kept))
        if words < self._min_words:
            doc.metadata[_TOO_LITTLE] = True
            doc.metadata["detail"] = f"{len(du_lines)} repeated, {words} words left"
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
