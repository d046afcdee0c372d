"""The stages of a run: filters over each file, three deduplications over all of them, and writing what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salamandra_data.curation.counts import FileCount
from salamandra_data.curation.curation_filter import filtered
from salamandra_data.curation.run import FILTER, WRITE, CurationRun
from salamandra_data.execution import Stage

if TYPE_CHECKING:
    from salamandra_data.curation.duplicates import Duplicates


@dataclass(frozen=True)
class _Filter:
    """Reads a file and applies all filters."""

    run: CurationRun

    def __call__(self, number: int) -> None:
        from salamandra_data.curation.documents import read_input, write_documents

        run, count = self.run, self.run.new_count()
        run.record_input(number)
        documents: Any = read_input(
            run.files[number], run.names[number], run.settings, count.removals, read=count.read
        )
        filters = run.filters.build()
        for step in filters:
            documents = filtered(step, documents, count.removals.get(step.name))
        path = run.filtered(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_documents(path, documents)
        count.findings = {step.name: step.findings() for step in filters}
        run.keep(FILTER, number, count)


def _left(run: CurationRun, number: int, kinds: Iterable[Duplicates], count: FileCount) -> Any:
    """The documents of a file without the duplicates of ``kinds``."""
    from salamandra_data.curation.documents import read_documents

    documents: Any = read_documents(run.filtered(number))
    for duplicates in kinds:
        step = duplicates.filter(number, count.removals[duplicates.kind], count.repeated)
        documents = step.run(documents, number, len(run.files))
    return documents


@dataclass(frozen=True)
class _Sign:
    """Hashes what is left of a file before the ``place``-th deduplication."""

    run: CurationRun
    place: int

    def __call__(self, number: int) -> None:
        kinds = self.run.duplicates()
        documents = _left(self.run, number, kinds[: self.place], self.run.new_count())
        kinds[self.place].sign(documents, number, len(self.run.files))


@dataclass(frozen=True)
class _Find:
    run: CurationRun
    place: int

    def __call__(self, task: int) -> None:
        self.run.duplicates()[self.place].find(task)


@dataclass(frozen=True)
class _Cluster:
    run: CurationRun
    place: int

    def __call__(self, task: int) -> None:
        self.run.duplicates()[self.place].cluster()


@dataclass(frozen=True)
class _Write:
    """Writes what is left of a file at the end."""

    run: CurationRun

    def __call__(self, number: int) -> None:
        from salamandra_data.curation.documents import write_documents

        count = self.run.new_count()
        documents = _left(self.run, number, self.run.duplicates(), count)
        count.written = write_documents(self.run.output(number), documents)
        self.run.keep(WRITE, number, count)


@dataclass(frozen=True)
class _Report:
    """Adds up what all tasks found out, and checks that no document was lost."""

    run: CurationRun

    def __call__(self, task: int) -> None:
        from salamandra_data.curation.report import write_report

        write_report(self.run)


def stages_of(run: CurationRun) -> list[Stage]:
    """All stages of a run, in their order."""
    files = len(run.files)
    stages = [Stage(FILTER, files, _Filter(run))]
    for place, duplicates in enumerate(run.duplicates()):
        kind = duplicates.kind
        stages.append(Stage(f"{kind}-sign", files, _Sign(run, place)))
        stages.append(Stage(f"{kind}-find", duplicates.finding_tasks, _Find(run, place)))
        if kind == "near":
            stages.append(Stage("near-cluster", 1, _Cluster(run, place)))
    return [*stages, Stage(WRITE, files, _Write(run)), Stage("report", 1, _Report(run))]
