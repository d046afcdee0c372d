"""What a run removed and kept, as JSON, samples and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_file, atomic_write_bytes
from salamandra_data.curation.counts import FileCount, Tallies, add_tallies, sum_of
from salamandra_data.curation.curation_filter import CurationFilter, Section
from salamandra_data.curation.run import FILTER, PAGE, REPORT, SAMPLES, WRITE, CurationRun, in_unicode
from salamandra_data.errors import DataError

_PLACES = ("input", "out")  # where a run reads and writes makes no difference to what


def write_report(run: CurationRun) -> None:
    """Add up the tasks' counts and write ``curation.json``, ``curation.html`` and ``removed/REASON.jsonl``.

    Raises:
        DataError: the documents read are not those written and those removed.
    """
    from salamandra_data.curation.page import curation_page

    total = _total(run)
    read, written = sum_of(total.read), sum_of(total.written)
    removed = sum(sum_of(removals.counts).documents for removals in total.removals.values())
    if read.documents != written.documents + removed:
        raise DataError(
            f"{run.directory}: {read.documents:,} documents were read, but {written.documents:,} written and "
            f"{removed:,} removed\n  remove this directory and start again"
        )
    report = _values(run, total)
    samples = {reason: removals.sample() for reason, removals in total.removals.items()}
    for reason, sample in samples.items():
        with atomic_file(run.out / SAMPLES / f"{reason}.jsonl") as stream:
            for shown in sample:
                stream.write(orjson.dumps(shown) + b"\n")
    sections = [section for step in run.filters.classes() for section in _sections(run, step, total)]
    atomic_write_bytes(run.out / PAGE, curation_page(report, samples, sections))
    atomic_write_bytes(
        run.out / REPORT,
        (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace"),
    )


def _total(run: CurationRun) -> FileCount:
    total = run.new_count()
    merge = {step.name: step.merged for step in run.filters.classes()}
    for stage in (FILTER, WRITE):
        for number in range(len(run.files)):
            part = FileCount.read_from(run.count_file(stage, number))
            add_tallies(total.read, part.read)
            add_tallies(total.written, part.written)
            add_tallies(total.repeated, part.repeated)
            for reason, removals in total.removals.items():
                removals.merge([part.removals[reason]])
            for name, found in part.findings.items():
                known = total.findings
                known[name] = _merged(merge[name], known[name], found) if name in known else found
    return total


# The work is done, so what a filter of the user's own cannot say of it does not end the run.


def _merged(merge: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    try:
        return merge(one, other)
    except Exception as error:
        return {"error": f"findings of two files could not be merged: {type(error).__name__}: {error}"}


def _sections(run: CurationRun, step: type[CurationFilter], total: FileCount) -> Sequence[Section]:
    found = _sorted(total.findings.get(step.name, step.nothing_found))
    try:
        return [*step.sections(found, run.filters.settings_of(step))]
    except Exception as error:
        return [
            Section(step.name, f"Its part of this page could not be made: {type(error).__name__}: {error}")
        ]


def _values(run: CurationRun, total: FileCount) -> dict[str, Any]:
    classes = run.filters.classes()
    findings = {step.name: total.findings.get(step.name, step.nothing_found) for step in classes}
    settings = run.settings.report()
    return {
        "format": "salamandra-curation-1",
        "settings": {name: value for name, value in settings.items() if name not in _PLACES},
        "user_filters": [
            {
                "class": chosen.place,
                "name": chosen.load().name,
                "options": run.filters.settings_of(chosen.load()),
            }
            for chosen in run.filters.of_user
        ],
        "reasons": run.filters.explanations(),
        "input_files": [in_unicode(str(path)) for path in run.files],
        "read": _by_language(total.read),
        "written": _by_language(total.written),
        "removed": {reason: _by_language(removals.counts) for reason, removals in total.removals.items()},
        "repeated_paragraphs": {
            language: {"paragraphs": tally.documents, "utf8_bytes": tally.utf8_bytes}
            for language, tally in sorted(total.repeated.items())
        },
        **{step.report_key: _sorted(findings[step.name]) for step in classes if step.report_key is not None},
        "findings": {
            step.name: _sorted(findings[step.name])
            for step in classes
            if step.report_key is None and findings[step.name]
        },
    }


def _by_language(tallies: Tallies) -> dict[str, dict[str, int]]:
    return {language: asdict(tally) for language, tally in sorted(tallies.items())}


def _sorted(found: Any) -> Any:
    """The same with sorted keys."""
    if isinstance(found, dict):
        return {key: _sorted(inner) for key, inner in sorted(found.items())}
    return [_sorted(inner) for inner in found] if isinstance(found, list) else found
