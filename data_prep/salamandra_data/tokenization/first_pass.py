"""First pass: read input files, count their documents, and write them as sorted runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.execution.worker_pool import Counters
from salamandra_data.languages import known_language
from salamandra_data.readers import Document, DocumentFile, Malformed
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.document_hash import ContentDigest, is_validation, shuffle_keys
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.run_file import Group, Run, label_of, scratch_error
from salamandra_data.tokenization.sorted_runs import Held, RunWriter

MOST_RUNS = 256
"""Of the whole input, about: each task may leave its share of them, and one at least."""


class InputFile(NamedTuple):
    """Number and place of an input file, and its share of the bytes of all of them."""

    number: int
    path: Location
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
    groups: dict[Group, GroupCount] = field(default_factory=dict)
    empty: Counter[str] = field(default_factory=Counter)
    malformed_lines: int = 0
    malformed: Path | None = None
    renamed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FirstPass:
    """What every worker of the first pass knows."""

    job: TokenizeJob
    directory: Path


def survey_files(state: FirstPass, counters: Counters, files: list[InputFile]) -> Survey:
    """Read input files, and write their documents as a few runs.

    Raises:
        DataError: a file cannot be read, has a malformed line that is not to be skipped, or the disk is full.
    """
    survey = Survey(first_file=files[0].number)
    _malformed_file(state, survey).unlink(missing_ok=True)  # of an interrupted attempt
    writer = RunWriter(state.directory, f"run-{survey.first_file:06d}")
    for file in files:
        _survey_file(state, counters, survey, writer, file.number, DocumentFile(file.path, state.job.keys))
    most = max(1, int(MOST_RUNS * sum(file.share for file in files)))
    survey.runs = writer.finish(most, lambda: counters.add(0, 0, 0))
    return survey


def _survey_file(
    state: FirstPass, counters: Counters, survey: Survey, writer: RunWriter, number: int, file: DocumentFile
) -> None:
    digests: dict[Group, ContentDigest] = {}
    reported = 0
    for entries in file.batches():
        documents = _with_text(state, survey, file, entries)
        for group, members in _by_group(survey, documents, state.job.validation_fraction).items():
            held = _held(state.job.seed, number, members)
            digests.setdefault(group, ContentDigest()).update(
                held.records, held.lines, held.text_bytes, held.label_bytes
            )
            count = survey.groups.setdefault(group, GroupCount())
            count.documents += len(members)
            count.utf8_bytes += int(held.text_bytes.sum())
            writer.add(group, held)
        consumed = file.consumed_bytes
        counters.add(len(documents), sum(len(document.text) for document in documents), consumed - reported)
        reported = consumed
    for group, digest in digests.items():
        survey.groups[group].digests[number] = digest.hexdigest()


def _with_text(
    state: FirstPass, survey: Survey, file: DocumentFile, entries: list[Document | Malformed]
) -> list[Document]:
    """The documents that are not empty; the others are counted."""
    documents = []
    for entry in entries:
        if isinstance(entry, Malformed):
            _take_malformed(state, survey, file, entry)
        elif entry.text:
            documents.append(entry)
        else:
            survey.empty[known_language(entry.language)] += 1
    return documents


def _by_group(
    survey: Survey, documents: list[Document], validation_fraction: float
) -> dict[Group, list[Document]]:
    groups: dict[Group, list[Document]] = {}
    for document in documents:
        split = "validation" if is_validation(document.text, validation_fraction) else "train"
        language = known_language(document.language)
        if language != document.language:
            survey.renamed[document.language] = language
        groups.setdefault((language, split), []).append(document)
    return groups


def _held(seed: int, number: int, documents: list[Document]) -> Held:
    count = len(documents)
    lines = np.fromiter((document.line for document in documents), dtype=np.uint64, count=count)
    texts = [document.text for document in documents]
    labels = [label_of(document.source, document.licence) for document in documents]
    return Held(
        file=number,
        keys=shuffle_keys(seed, number, lines),
        lines=lines,
        records=b"".join(chain.from_iterable(zip(texts, labels, strict=True))),
        text_bytes=np.fromiter(map(len, texts), dtype=np.uint64, count=count),
        label_bytes=np.fromiter(map(len, labels), dtype=np.uint64, count=count),
        fast=np.fromiter((may_be_fast(document.string) for document in documents), dtype=bool, count=count),
    )


def _malformed_file(state: FirstPass, survey: Survey) -> Path:
    return state.directory / f"malformed-{survey.first_file:06d}"


def _take_malformed(state: FirstPass, survey: Survey, file: DocumentFile, entry: Malformed) -> None:
    if not state.job.skip_malformed:
        raise DataError(
            f"{file.path}:{entry.line}: {entry.reason}\n"
            "  mend the line, or pass over such lines with --on-error skip; nothing was written"
        )
    survey.malformed_lines += 1
    survey.malformed = _malformed_file(state, survey)
    try:
        with open(survey.malformed, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{file.path}:{entry.line}: {entry.reason}\n")
    except OSError as error:
        raise scratch_error(survey.malformed, error) from error
