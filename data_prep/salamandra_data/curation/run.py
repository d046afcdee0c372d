"""What all tasks of a run know, where they leave things for each other, and what of an earlier start still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_salamandra.foundation.atomic_files import atomic_write_text, write_error
from megatron_salamandra.foundation.directory_lock import LOCK
from salamandra_data.checksums import sha256_of_file
from salamandra_data.curation import user_code
from salamandra_data.curation.chosen_filters import ChosenFilters
from salamandra_data.curation.contamination import task_files
from salamandra_data.curation.counts import FileCount
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.errors import DataError
from salamandra_data.readers import BY_PRODUCTS, fingerprint, mark_by_products
from salamandra_data.storage import Location

if TYPE_CHECKING:
    from salamandra_data.curation.duplicates import Duplicates

FILTER, WRITE = "filter", "write"
"""Names of the stages that count documents: that which reads the input, and that which writes what is left."""

REPORT, PAGE, SAMPLES = "curation.json", "curation.html", "removed"
"""What a run writes beside its documents."""

_MOST_NAME_BYTES = 200  # of 255, for the endings of files that are being written


@dataclass(frozen=True)
class CurationRun:
    """One run.

    Attributes:
        settings: of the run.
        files: the input, numbered in this order.
        filters: of the run.
    """

    settings: CurationSettings
    files: Sequence[Location]
    filters: ChosenFilters

    @property
    def out(self) -> Path:
        """Where it writes."""
        return self.settings.out

    @property
    def directory(self) -> Path:
        """What its tasks leave for each other."""
        return self.out / ".stages"

    @cached_property
    def names(self) -> list[str]:
        """Of the input files, in documents' ids."""
        return short_names(self.files)

    def filtered(self, number: int) -> Path:
        """Documents of a file that passed the filters."""
        return self.directory / "filtered" / f"{number:06d}.jsonl.zst"

    def output(self, number: int) -> Path:
        """Documents of a file that are left at the end. A name that would be too long is cut, and has a hash."""
        name = in_unicode(self.files[number].name).split(".", 1)[0]
        ending = ".jsonl.zst"
        if len(name.encode()) > _MOST_NAME_BYTES - len(f"{number:05d}-{ending}"):
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            name = f"{name.encode()[: _MOST_NAME_BYTES - 40].decode(errors='ignore')}-{digest}"
        return self.out / "documents" / f"{number:05d}-{name}{ending}"

    def count_file(self, stage: str, number: int) -> Path:
        """What a task found out."""
        return self.directory / "counts" / f"{stage}-{number:06d}"

    @property
    def stage_records(self) -> Path:
        """Where the executors keep which tasks are complete."""
        return self.directory / "run"

    def new_count(self) -> FileCount:
        """Nothing found out yet."""
        return FileCount.of_reasons(
            list(self.filters.explanations()), self.settings.samples, self.settings.seed
        )

    def keep(self, stage: str, number: int, count: FileCount) -> None:
        """Leave what a task found out."""
        if self.settings.mask_personal_data:
            for removals in count.removals.values():
                removals.mask()
        count.write(self.count_file(stage, number))

    def duplicates(self) -> list[Duplicates]:
        """The deduplications asked for, in their order."""
        from salamandra_data.curation.duplicate_search import SourceName
        from salamandra_data.curation.duplicates import DocumentLines, Duplicates

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

    def claim(self) -> None:
        """Make the directory this run's, or find that it is.

        Raises:
            DataError: it holds other files, or a run on other input or with other options.
        """
        mark, earlier = self.directory / "run-identity", self.directory / "identity"
        ours = {self.directory.name, LOCK, BY_PRODUCTS}
        try:
            if earlier.exists():
                raise DataError(
                    f"{self.out}: holds a run that an earlier version of this project started, and which only that "
                    "one can end\n  choose another --out, or remove this one"
                )
            if not mark.exists():
                if self.out.is_dir() and any(entry.name not in ours for entry in self.out.iterdir()):
                    raise DataError(f"{self.out}: holds other files; choose an empty --out")
                atomic_write_text(mark, self._identity())
            elif mark.read_text() != self._identity():
                raise DataError(
                    f"{self.out}: holds a run on other input or with other options\n"
                    "  choose another --out, or remove this one"
                )
            mark_by_products(self.out, [SAMPLES])
        except OSError as error:
            raise write_error(mark, error) from error

    def _identity(self) -> str:
        """What makes a run's results, but for what the input files hold and whether malformed lines end it.

        These may change while files are mended, see :meth:`forget_stale_tasks`.
        """
        settings = self.settings
        also: dict[str, Any] = {
            "files": [str(path) for path in self.files],
            "task_files": [sha256_of_file(path) for path in task_files(settings.decontaminate)],
            "filters": [chosen.identity() for chosen in self.filters.of_user],
            "harm": settings.harm and user_code.digest(settings.harm),
        }
        return settings.model_copy(update={"on_error": "fail"}).identity(also)

    def record_input(self, number: int) -> None:
        """Keep, before a file is read, what it can be recognised by."""
        atomic_write_text(self._fingerprint_file(number), fingerprint([self.files[number]]))

    def forget_stale_tasks(self) -> None:
        """Have files read again that changed since they were read, or have malformed lines that now end a run.

        Raises:
            DataError: all files were read already, and later stages rest on what they held.
        """
        stale = list(self._stale())
        if stale and all(self._filter_mark(number).exists() for number in range(len(self.files))):
            number, why = stale[0]
            raise DataError(
                f"{self.out}: holds a run on other input: {self.files[number]} {why}\n"
                "  choose another --out, or remove this one"
            )
        for number, _ in stale:
            self._filter_mark(number).unlink()

    def check_output(self) -> None:
        """Look whether all that a complete run wrote is there.

        Raises:
            DataError: a file is missing.
        """
        for path in (self.out / REPORT, self.out / PAGE, *map(self.output, range(len(self.files)))):
            if not path.is_file():
                raise DataError(
                    f"{path}: is missing, though the run that wrote it is complete\n"
                    f"  put it back, or remove {self.out} and run the same command again"
                )

    def _stale(self) -> Iterator[tuple[int, str]]:
        for number, path in enumerate(self.files):
            if not self._filter_mark(number).exists():
                continue
            if self._fingerprint_file(number).read_text() != fingerprint([path]):
                yield number, "has changed since it was read"
            elif not self.settings.skip_malformed:
                count = FileCount.read_from(self.count_file(FILTER, number))
                if count.removals["malformed"].counts:
                    yield number, "has malformed lines, which were passed over"

    def _fingerprint_file(self, number: int) -> Path:
        return self.directory / "inputs" / f"{number:06d}"

    def _filter_mark(self, number: int) -> Path:
        """Exists once an input file was read to its end: datatrove's mark of a complete task."""
        return self.stage_records / FILTER / "completions" / f"{number:05d}"


def short_names(files: Sequence[Location]) -> list[str]:
    """The path of each file below the directory that holds all of them."""
    parts = [in_unicode(str(path)).split("/") for path in files]
    shared = 0
    for names in zip(*(names[:-1] for names in parts), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    return ["/".join(names[shared:]) for names in parts]


def in_unicode(path: str) -> str:
    """A path that can be written as text: bytes that are no UTF-8 are spelt out."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
