"""The stages of a run: filters over each file, three deduplications over all of them, and writing what is left."""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salamandra_data.atomic_write import atomic_write_bytes
from salamandra_data.curation.removals import Removals, Tally
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.execution import Stage
from salamandra_data.storage import Location

if TYPE_CHECKING:
    from salamandra_data.curation.contamination import TaskFile
    from salamandra_data.curation.duplicates import Duplicates

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

    def new_count(self) -> FileCount:
        """Nothing found out yet."""
        settings = self.settings
        return FileCount(removals={r: Removals(r, settings.samples, settings.seed) for r in REASONS})

    def keep(self, stage: str, number: int, count: FileCount) -> None:
        """Leave what a task found out."""
        atomic_write_bytes(self.count_file(stage, number), pickle.dumps(count))

    def duplicates(self) -> list[Duplicates]:
        """The deduplications asked for, in their order."""
        from salamandra_data.curation.duplicates import Duplicates, SourceName

        settings = self.settings
        wanted = (("exact", settings.exact), ("near", settings.near), ("paragraphs", settings.paragraphs))
        source = SourceName(settings.across_sources)
        return [
            Duplicates(kind, self.directory / kind, source, settings.min_words)
            for kind, asked in wanted
            if asked
        ]


@dataclass(frozen=True)
class _Filter:
    """Reads a file and applies all filters."""

    work: Work

    def __call__(self, number: int) -> None:
        from salamandra_data.curation.documents import read_input, write_documents

        settings, count = self.work.settings, self.work.new_count()
        documents: Any = read_input(self.work.files[number], settings, count.removals, read=count.read)
        for step in _filters(settings, count):
            documents = step.run(documents, number, len(self.work.files))
        path = self.work.filtered(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_documents(path, documents)
        self.work.keep("filter", number, count)


def _filters(settings: CurationSettings, count: FileCount) -> Iterator[Any]:
    from salamandra_data.curation import filters
    from salamandra_data.curation.contamination import NgramIndex

    if settings.identify_language:
        yield filters.LanguageIdentifier(count.removals["language"])
    elif settings.check_language:
        yield filters.LanguageFilter(count.removals["language"])
    if settings.decontaminate:
        index = NgramIndex(settings.decontaminate, settings.ngram)
        yield filters.ContaminationFilter(count.removals["contaminated"], index)
    if settings.min_score is not None:
        yield filters.ScoreFilter(count.removals["score"], settings.min_score, count.scores)
    if settings.harm is not None:
        yield filters.HarmFilter(count.removals["harm"], settings.harm)
    if settings.mask_personal_data:
        yield filters.PersonalDataMask(count.personal_data)


def _left(work: Work, number: int, kinds: Iterable[Duplicates], count: FileCount) -> Any:
    """The documents of a file without the duplicates of ``kinds``."""
    from salamandra_data.curation.documents import read_documents

    documents: Any = read_documents(work.filtered(number))
    for duplicates in kinds:
        step = duplicates.filter(count.removals[duplicates.kind], count.repeated)
        documents = step.run(documents, number, len(work.files))
    return documents


@dataclass(frozen=True)
class _Sign:
    """Hashes what is left of a file before the ``place``-th deduplication."""

    work: Work
    place: int

    def __call__(self, number: int) -> None:
        kinds = self.work.duplicates()
        documents = _left(self.work, number, kinds[: self.place], self.work.new_count())
        kinds[self.place].signature().run(documents, number, len(self.work.files))
        deque(documents, maxlen=0)


@dataclass(frozen=True)
class _Find:
    work: Work
    place: int

    def __call__(self, task: int) -> None:
        self.work.duplicates()[self.place].find(task)


@dataclass(frozen=True)
class _Cluster:
    work: Work
    place: int

    def __call__(self, task: int) -> None:
        self.work.duplicates()[self.place].cluster()


@dataclass(frozen=True)
class _Write:
    """Writes what is left of a file at the end."""

    work: Work

    def __call__(self, number: int) -> None:
        from salamandra_data.curation.documents import write_documents

        count = self.work.new_count()
        documents = _left(self.work, number, self.work.duplicates(), count)
        count.written = write_documents(self.work.output(number), documents)
        self.work.keep("write", number, count)


@dataclass(frozen=True)
class _Report:
    """Adds up what all tasks found out, and checks that no document was lost."""

    work: Work

    def __call__(self, task: int) -> None:
        from salamandra_data.curation.report import write_report

        write_report(self.work)


def stages_of(work: Work) -> list[Stage]:
    """All stages of a run, in their order."""
    files = len(work.files)
    stages = [Stage("filter", files, _Filter(work))]
    for place, duplicates in enumerate(work.duplicates()):
        kind = duplicates.kind
        stages.append(Stage(f"{kind}-sign", files, _Sign(work, place)))
        stages.append(Stage(f"{kind}-find", duplicates.finding_tasks, _Find(work, place)))
        if kind == "near":
            stages.append(Stage("near-cluster", 1, _Cluster(work, place)))
    return [*stages, Stage("write", files, _Write(work)), Stage("report", 1, _Report(work))]
