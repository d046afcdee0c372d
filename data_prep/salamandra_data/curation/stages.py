"""The stages of a run: filters over each file, three deduplications over all of them, and writing what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salamandra_data.curation.settings import CurationSettings
from salamandra_data.curation.work import FILTER, FileCount, Work
from salamandra_data.execution import Stage

if TYPE_CHECKING:
    from salamandra_data.curation.duplicates import Duplicates


@dataclass(frozen=True)
class _Filter:
    """Reads a file and applies all filters."""

    work: Work

    def __call__(self, number: int) -> None:
        from salamandra_data.curation.documents import read_input, write_documents
        from salamandra_data.curation.earlier_start import note_input

        settings, count = self.work.settings, self.work.new_count()
        note_input(self.work, number)
        documents: Any = read_input(
            self.work.files[number], self.work.names[number], settings, count.removals, read=count.read
        )
        for step in _filters(settings, count):
            documents = step.run(documents, number, len(self.work.files))
        path = self.work.filtered(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_documents(path, documents)
        self.work.keep(FILTER, number, count)


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
        step = duplicates.filter(number, count.removals[duplicates.kind], count.repeated)
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
        kinds[self.place].sign(documents, number, len(self.work.files))


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
    stages = [Stage(FILTER, files, _Filter(work))]
    for place, duplicates in enumerate(work.duplicates()):
        kind = duplicates.kind
        stages.append(Stage(f"{kind}-sign", files, _Sign(work, place)))
        stages.append(Stage(f"{kind}-find", duplicates.finding_tasks, _Find(work, place)))
        if kind == "near":
            stages.append(Stage("near-cluster", 1, _Cluster(work, place)))
    return [*stages, Stage("write", files, _Write(work)), Stage("report", 1, _Report(work))]
