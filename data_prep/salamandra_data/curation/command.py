"""The command: from raw documents to those worth training on."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.directory_lock import sole_use
from megatron_salamandra.foundation.packages import check_installed
from salamandra_data.curation import user_code
from salamandra_data.curation.chosen_filters import ChosenFilters, read_user_filters
from salamandra_data.curation.run import PAGE, REPORT, SAMPLES, CurationRun
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.curation.stages import stages_of
from salamandra_data.errors import DataError
from salamandra_data.execution import ExecutorSettings, Outcome, run_stages
from salamandra_data.readers import find_inputs
from salamandra_data.text_table import count_of, text_table

_UNREADABLE = ("malformed", "empty")


@dataclass(frozen=True)
class CurationResult:
    """What a finished run read, removed and wrote: the contents of ``curation.json``."""

    report: dict[str, Any]
    page: Path

    def table(self) -> str:
        """Documents by language: read, removed by each reason that occurred, written, and the share written."""
        report = self.report
        reasons = [reason for reason, tallies in report["removed"].items() if tallies]
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

    def nothing_readable(self) -> str | None:
        """Why there is nothing to train on, if the input held no text that could be read; else None."""
        removed = {
            reason: sum(tally["documents"] for tally in tallies.values())
            for reason, tallies in self.report["removed"].items()
        }
        if self.report["written"] or any(
            count for reason, count in removed.items() if reason not in _UNREADABLE
        ):
            return None
        counts = ", ".join(f"{removed[reason]:,} {reason}" for reason in _UNREADABLE if removed[reason])
        samples = [self._first_sample(reason) for reason in _UNREADABLE if removed[reason]]
        return (
            f"no document could be read from {count_of(len(self.report['input_files']), 'input file')}: "
            f"{counts or 'there is none in them'}{''.join(samples)}\n"
            f"  {self.page} shows more of what is wrong with them"
        )

    def _first_sample(self, reason: str) -> str:
        """The first removed document that was kept, and what is wrong with it."""
        lines = (self.page.parent / SAMPLES / f"{reason}.jsonl").read_bytes().splitlines()
        shown = min((json.loads(line) for line in lines), key=lambda each: each["id"], default=None)
        return f"; such as {shown['id']}: {shown['detail'] or 'no text'}" if shown else ""


def _row(language: str, counts: list[int]) -> tuple[str, ...]:
    return (language, *(f"{count:,}" for count in counts), f"{100 * counts[0] / max(sum(counts), 1):.1f}")


def curate(settings: CurationSettings, executor: ExecutorSettings) -> tuple[Outcome, CurationResult | None]:
    """Curate ``settings.input`` into ``settings.out``; tasks that an earlier start completed are passed over.

    Args:
        settings: of the run.
        executor: where its tasks run. What is written does not depend on it.
    Returns:
        What was submitted, and the result once all of it is done. Under SLURM that is at a later call.
    Raises:
        DataError: bad options or input, another run or its output in ``out``, a failed task.
        MissingPackage: of the extra ``data``.
    """
    from salamandra_data.curation.documents import declared_language, unknown_language

    check_installed("datatrove", "xxhash", "matplotlib", extra="data", purpose="curation")
    settings.keys.check()
    fixed = settings.language
    if fixed is not None and declared_language(fixed, settings) is None:
        raise DataError(f"--language {fixed}: {unknown_language(fixed)}")
    files = [
        path.absolute() if isinstance(path, Path) else path
        for path in find_inputs(settings.input, out=settings.out)
    ]
    settings = settings.model_copy(
        update={
            "out": settings.out.absolute(),
            "decontaminate": tuple(path.absolute() for path in settings.decontaminate),
            "harm": settings.harm and user_code.with_its_file(settings.harm, Path.cwd()),
        }
    )
    filters = ChosenFilters(settings, read_user_filters(settings.filters) if settings.filters else ())
    filters.check()
    logging.getLogger("datatrove").setLevel(logging.WARNING)
    run = CurationRun(settings, files, filters)
    with sole_use(settings.out):
        run.claim()
        run.forget_stale_tasks()
        outcome = run_stages(stages_of(run), executor, run.stage_records)
        if not outcome.done:
            return outcome, None
        run.check_output()
        report = json.loads((settings.out / REPORT).read_text())
        for unneeded in ("filtered", "exact", "near", "paragraphs"):
            shutil.rmtree(run.directory / unneeded, ignore_errors=True)
        return outcome, CurationResult(report, settings.out / PAGE)
