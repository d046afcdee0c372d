"""First pass: read input files, count their documents, and write them as sorted runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.execution import Counters
from salamandra_data.languages import known_language
from salamandra_data.readers import Document, DocumentFile, Malformed
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.document_hash import ContentDigest, is_validation, shuffle_keys
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.run_file import ByGroup, Group, Run, label_of, scratch_error
from salamandra_data.tokenization.sorted_runs import CollectedDocuments, RunWriter

MOST_RUNS = 256
"""Of the whole input, about: each task may leave its share of them, and one at least."""

_TOGETHER_BYTES = 16 << 20


class InputFile(NamedTuple):
    """Number, place and size of an input file, and the share of its bytes in those of all files."""

    number: int
    path: Location
    size_bytes: int
    share: float


@dataclass
class GroupCount:
    """What one language and split holds, and a digest of it per input file."""

    documents: int = 0
    utf8_bytes: int = 0
    digests: dict[int, str] = field(default_factory=dict)

    def merge(self, other: GroupCount) -> None:
        """Add the count of other files to this one."""
        self.documents += other.documents
        self.utf8_bytes += other.utf8_bytes
        self.digests |= other.digests

    @property
    def digest(self) -> str:
        """Of all documents: the same value means the same documents at the same places."""
        return hashlib.sha256(repr(sorted(self.digests.items())).encode()).hexdigest()


@dataclass
class Survey:
    """What some input files hold, and where their documents are now.

    ``malformed`` names a file of lines, ``renamed`` the corpus language of each name that means one.
    """

    first_file: int
    runs: list[Run] = field(default_factory=list)
    groups: ByGroup[GroupCount] = field(default_factory=dict)
    empty: Counter[str] = field(default_factory=Counter)
    malformed_lines: int = 0
    malformed: Path | None = None
    renamed: dict[str, str] = field(default_factory=dict)


def input_groups(job: TokenizeJob, files: Sequence[Location]) -> list[list[InputFile]]:
    """The units of the first pass, each some input files.

    Small files in a row are one unit: a run for each of a million files would be a million runs to read. So units are
    twice ``MOST_RUNS`` at most, but for files that are larger than their share.
    """
    sizes = [DocumentFile(path, job.documents.keys).size_bytes for path in files]
    total = sum(sizes)
    together = max(_TOGETHER_BYTES, total // MOST_RUNS)
    groups: list[list[InputFile]] = []
    size_of_last = 0
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if not groups or size_of_last + size > together:
            groups.append([])
            size_of_last = 0
        groups[-1].append(InputFile(number, path, size, size / max(total, 1)))
        size_of_last += size
    return groups


def survey_files(job: TokenizeJob, directory: Path, counters: Counters, files: Sequence[InputFile]) -> Survey:
    """Read input files, and write their documents as a few runs into ``directory``.

    Raises:
        DataError: a file cannot be read, has a malformed line that is not to be skipped, or the disk is full.
    """
    survey = Survey(first_file=files[0].number)
    malformed_lines = directory / f"malformed-{survey.first_file:06d}"
    malformed_lines.unlink(missing_ok=True)  # of an interrupted attempt
    writer = RunWriter(directory, f"run-{survey.first_file:06d}")
    for file in files:
        reading = _Reading(
            job, survey, malformed_lines, file.number, DocumentFile(file.path, job.documents.keys)
        )
        reading.run(counters, writer)
    most = max(1, int(MOST_RUNS * sum(file.share for file in files)))
    survey.runs = writer.finish(most, lambda: counters.add(0, 0, 0))
    return survey


@dataclass(frozen=True)
class _Reading:
    """Of one input file, into the survey of several."""

    job: TokenizeJob
    survey: Survey
    malformed_lines: Path
    number: int
    file: DocumentFile

    def run(self, counters: Counters, writer: RunWriter) -> None:
        digests: dict[Group, ContentDigest] = {}
        reported = 0
        for entries in self.file.batches():
            documents = self._with_text(entries)
            for group, members in self._by_group(documents).items():
                collected = self._collected(members)
                digests.setdefault(group, ContentDigest()).update(
                    collected.records, collected.lines, collected.text_bytes, collected.label_bytes
                )
                count = self.survey.groups.setdefault(group, GroupCount())
                count.documents += len(members)
                count.utf8_bytes += int(collected.text_bytes.sum())
                writer.add(group, collected)
            consumed = self.file.consumed_bytes
            counters.add(
                len(documents), sum(len(document.text) for document in documents), consumed - reported
            )
            reported = consumed
        for group, digest in digests.items():
            self.survey.groups[group].digests[self.number] = digest.hexdigest()

    def _with_text(self, entries: list[Document | Malformed]) -> list[Document]:
        """The documents that are not empty; the others are counted."""
        documents = []
        for entry in entries:
            if isinstance(entry, Malformed):
                self._take_malformed(entry)
            elif entry.text:
                documents.append(entry)
            else:
                self.survey.empty[known_language(entry.language)] += 1
        return documents

    def _by_group(self, documents: list[Document]) -> dict[Group, list[Document]]:
        groups: dict[Group, list[Document]] = {}
        for document in documents:
            split = "validation" if is_validation(document.text, self.job.validation_fraction) else "train"
            language = known_language(document.language)
            if language != document.language:
                self.survey.renamed[document.language] = language
            groups.setdefault((language, split), []).append(document)
        return groups

    def _collected(self, documents: list[Document]) -> CollectedDocuments:
        count = len(documents)
        lines = np.fromiter((document.line for document in documents), dtype=np.uint64, count=count)
        texts = [document.text for document in documents]
        labels = [label_of(document.source, document.licence) for document in documents]
        return CollectedDocuments(
            file=self.number,
            keys=shuffle_keys(self.job.seed, self.number, lines),
            lines=lines,
            records=b"".join(chain.from_iterable(zip(texts, labels, strict=True))),
            text_bytes=np.fromiter(map(len, texts), dtype=np.uint64, count=count),
            label_bytes=np.fromiter(map(len, labels), dtype=np.uint64, count=count),
            fast=np.fromiter(
                (may_be_fast(document.string) for document in documents), dtype=bool, count=count
            ),
        )

    def _take_malformed(self, entry: Malformed) -> None:
        if not self.job.documents.skip_malformed:
            raise DataError(
                f"{self.file.path}:{entry.line}: {entry.reason}\n"
                "  mend the line, or pass over such lines with --on-error skip; nothing was written"
            )
        self.survey.malformed_lines += 1
        self.survey.malformed = self.malformed_lines
        try:
            with open(self.malformed_lines, "a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"{self.file.path}:{entry.line}: {entry.reason}\n")
        except OSError as error:
            raise scratch_error(self.malformed_lines, error) from error
