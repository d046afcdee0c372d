"""What the stages of a run know, and what they leave for each other."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.curation.removals import Removals, Tally
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.storage import Location

if TYPE_CHECKING:
    from salamandra_data.curation.contamination import TaskFile
    from salamandra_data.curation.duplicates import Duplicates

FILTER = "filter"
"""Name of the stage that reads the input."""

REASONS = ("malformed", "empty", "language", "contaminated", "score", "harm", "exact", "near", "paragraphs")
"""Why documents are removed, in the order in which it is looked for."""


@dataclass
class FileCount:
    """What one task found out.

    Attributes:
        read: by language as declared; ``written`` by language as identified.
        removals: by reason.
        personal_data: by language and kind.
        repeated: paragraphs taken out of documents that stay, by language.
        scores: histogram of quality scores by language.
    """

    read: dict[str, Tally] = field(default_factory=dict)
    written: dict[str, Tally] = field(default_factory=dict)
    removals: dict[str, Removals] = field(default_factory=dict)
    personal_data: dict[str, Counter[str]] = field(default_factory=dict)
    repeated: dict[str, Tally] = field(default_factory=dict)
    scores: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Where the stages leave things for each other, and what they all know.

    Attributes:
        settings: of the run.
        files: the input, numbered in this order.
        directory: of the run.
        task_files: of benchmarks, and what of each is looked for.
    """

    settings: CurationSettings
    files: Sequence[Location]
    directory: Path
    task_files: Sequence[TaskFile] = ()

    @cached_property
    def names(self) -> list[str]:
        """Of the input files, in documents' ids."""
        from salamandra_data.curation.document_lines import short_names

        return short_names(self.files)

    def filtered(self, number: int) -> Path:
        """Documents of a file that passed the filters."""
        return self.directory / "filtered" / f"{number:06d}.jsonl.zst"

    def output(self, number: int) -> Path:
        """Documents of a file that are left at the end."""
        name = self.files[number].name.split(".", 1)[0]
        return self.settings.out / "documents" / f"{number:05d}-{name}.jsonl.zst"

    def count_file(self, stage: str, number: int) -> Path:
        """What a task found out."""
        return self.directory / "counts" / f"{stage}-{number:06d}"

    def fingerprint_file(self, number: int) -> Path:
        """What an input file was known by when it was read."""
        return self.directory / "inputs" / f"{number:06d}"

    @property
    def stage_records(self) -> Path:
        """Where the executors keep which tasks are complete."""
        return self.directory / "run"

    def filter_mark(self, number: int) -> Path:
        """Exists once an input file was read to its end: datatrove's mark of a complete task."""
        return self.stage_records / FILTER / "completions" / f"{number:05d}"

    def new_count(self) -> FileCount:
        """Nothing found out yet."""
        settings = self.settings
        return FileCount(removals={r: Removals(r, settings.samples, settings.seed) for r in REASONS})

    def keep(self, stage: str, number: int, count: FileCount) -> None:
        """Leave what a task found out."""
        if self.settings.mask_personal_data:
            for removals in count.removals.values():
                removals.mask()
        atomic_write_bytes(self.count_file(stage, number), pickle.dumps(count))

    def duplicates(self) -> list[Duplicates]:
        """The deduplications asked for, in their order."""
        from salamandra_data.curation.document_lines import DocumentLines
        from salamandra_data.curation.duplicate_signatures import SourceName
        from salamandra_data.curation.duplicates import Duplicates

        settings = self.settings
        wanted = (("exact", settings.exact), ("near", settings.near), ("paragraphs", settings.paragraphs))
        source = SourceName(settings.across_sources)
        return [
            Duplicates(
                kind,
                self.directory / kind,
                source,
                settings.min_words,
                DocumentLines(self.directory / kind / "lines", self.names),
            )
            for kind, asked in wanted
            if asked
        ]
