"""First pass: read input files, count their documents, and write them as sorted runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from salamandra_data.atomic_write import write_error
from salamandra_data.errors import DataError
from salamandra_data.execution.worker_pool import Counters
from salamandra_data.readers import DocumentFile, Malformed
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.document_hash import ContentDigest, is_validation, shuffle_keys
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.sorted_runs import Group, Held, Run, RunWriter

_BATCH_BYTES = 1 << 20

InputFile = tuple[int, Location]
"""Number and place of an input file."""


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
    """What some input files hold, and where their documents are now. ``malformed`` names a file of lines."""

    first_file: int
    runs: list[Run] = field(default_factory=list)
    groups: dict[Group, GroupCount] = field(default_factory=dict)
    empty: Counter[str] = field(default_factory=Counter)
    malformed_lines: int = 0
    malformed: Path | None = None


@dataclass(frozen=True)
class FirstPass:
    """What every worker of the first pass knows."""

    job: TokenizeJob
    directory: Path


def survey_files(state: FirstPass, counters: Counters, files: list[InputFile]) -> Survey:
    """Read input files whose documents together make one run, or one large file.

    Raises:
        DataError: a file cannot be read, has a malformed line that is not to be skipped, or the disk is full.
    """
    survey = Survey(first_file=files[0][0])
    writer = RunWriter(state.directory, f"run-{survey.first_file:06d}")
    for number, path in files:
        _survey_file(state, counters, survey, writer, number, DocumentFile(path, state.job.keys))
    writer.flush()
    survey.runs = writer.runs
    return survey


def _survey_file(
    state: FirstPass, counters: Counters, survey: Survey, writer: RunWriter, number: int, file: DocumentFile
) -> None:
    fraction = state.job.validation_fraction
    key_of = shuffle_keys(state.job.seed, number)
    batches: dict[Group, list[Held]] = {}
    digests: dict[Group, ContentDigest] = {}
    documents = text_bytes = reported = 0
    for entry in file:
        if isinstance(entry, Malformed):
            _take_malformed(state, survey, file, entry)
            continue
        documents += 1
        text, line = entry.text, entry.line
        if not text:
            survey.empty[entry.language] += 1
            continue
        group = (entry.language, "validation" if is_validation(text, fraction) else "train")
        held = (key_of(line), text, line, (entry.source, entry.licence), may_be_fast(text, entry.is_nfc))
        if group in batches:
            batches[group].append(held)
        else:
            batches[group] = [held]
        text_bytes += len(text)
        if text_bytes >= _BATCH_BYTES:
            _take_batches(survey, writer, number, batches, digests)
            consumed = file.consumed_bytes
            counters.add(documents, text_bytes, consumed - reported)
            batches, documents, text_bytes, reported = {}, 0, 0, consumed
    _take_batches(survey, writer, number, batches, digests)
    counters.add(documents, text_bytes, file.consumed_bytes - reported)
    for group, digest in digests.items():
        survey.groups[group].digests[number] = digest.hexdigest()


def _take_batches(
    survey: Survey,
    writer: RunWriter,
    number: int,
    batches: dict[Group, list[Held]],
    digests: dict[Group, ContentDigest],
) -> None:
    for group, batch in batches.items():
        _, texts, lines, labels, _ = zip(*batch, strict=True)
        digests.setdefault(group, ContentDigest()).update(texts, lines, labels)
        count = survey.groups.setdefault(group, GroupCount())
        count.documents += len(texts)
        count.utf8_bytes += sum(map(len, texts))
        writer.add(group, number, batch)


def _take_malformed(state: FirstPass, survey: Survey, file: DocumentFile, entry: Malformed) -> None:
    if not state.job.skip_malformed:
        raise DataError(
            f"{file.path}:{entry.line}: {entry.reason}\n"
            "  mend the line, or pass over such lines with --on-error skip; nothing was written"
        )
    survey.malformed_lines += 1
    survey.malformed = state.directory / f"malformed-{survey.first_file:06d}"
    try:
        with open(survey.malformed, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{file.path}:{entry.line}: {entry.reason}\n")
    except OSError as error:
        raise write_error(survey.malformed, error) from error
