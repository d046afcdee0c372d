"""First pass: read one input file, count its documents, and write them as sorted runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from salamandra_data.atomic_write import write_error
from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentFile, Malformed
from salamandra_data.tokenization.document_hash import content_digest, is_validation, shuffle_key
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.sorted_runs import Group, Run, RunWriter
from salamandra_data.tokenization.worker_pool import Counters

_REPORT_EVERY_BYTES = 4 << 20
_DIGEST_RANGE = 1 << 128


@dataclass
class GroupCount:
    """What one language and split holds. ``digest`` stands for the set of documents, whatever their order."""

    documents: int = 0
    utf8_bytes: int = 0
    digest: int = 0

    def merge(self, other: GroupCount) -> None:
        """Add another count to this one."""
        self.documents += other.documents
        self.utf8_bytes += other.utf8_bytes
        self.digest = (self.digest + other.digest) % _DIGEST_RANGE


@dataclass
class FileSurvey:
    """What one input file holds, and where its documents are now. ``malformed`` names a file of lines."""

    file_number: int
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


def survey_file(state: FirstPass, counters: Counters, task: tuple[int, Path]) -> FileSurvey:
    """Read one input file.

    Raises:
        DataError: the file cannot be read, has a malformed line that is not to be skipped, or the disk is full.
    """
    file_number, path = task
    survey = FileSurvey(file_number)
    writer = RunWriter(state.directory, file_number)
    file = DocumentFile(path, state.job.keys)
    documents = text_bytes = reported = 0
    for entry in file:
        if isinstance(entry, Malformed):
            _take_malformed(state, survey, path, entry)
            continue
        documents += 1
        text_bytes += len(entry.text)
        if not entry.text:
            survey.empty[entry.language] += 1
            continue
        key = shuffle_key(state.job.seed, file_number, entry.line)
        split = "validation" if is_validation(entry.text, state.job.validation_fraction) else "train"
        group = (entry.language, split)
        count = GroupCount(1, len(entry.text), content_digest(key, entry))
        survey.groups.setdefault(group, GroupCount()).merge(count)
        writer.add(group, key, entry)
        if text_bytes >= _REPORT_EVERY_BYTES:
            counters.add(documents, text_bytes, file.consumed_bytes - reported)
            documents, text_bytes, reported = 0, 0, file.consumed_bytes
    writer.flush()
    counters.add(documents, text_bytes, path.stat().st_size - reported)
    survey.runs = writer.runs
    return survey


def _take_malformed(state: FirstPass, survey: FileSurvey, path: Path, entry: Malformed) -> None:
    if not state.job.skip_malformed:
        raise DataError(
            f"{path}:{entry.line}: {entry.reason}\n"
            "  mend the line, or pass over such lines with --on-error skip; nothing was written"
        )
    survey.malformed_lines += 1
    survey.malformed = state.directory / f"malformed-{survey.file_number:06d}"
    try:
        with open(survey.malformed, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{path}:{entry.line}: {entry.reason}\n")
    except OSError as error:
        raise write_error(survey.malformed, error) from error
