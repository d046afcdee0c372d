"""What a run removed and kept, as JSON, samples and a page."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import asdict
from typing import Any

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_file, atomic_write_bytes
from salamandra_data.curation.removals import Tally
from salamandra_data.curation.work import FILTER, REASONS, FileCount, Work
from salamandra_data.errors import DataError

REPORT = "curation.json"
PAGE = "curation.html"
SAMPLES = "removed"


def write_report(work: Work) -> None:
    """Add up the tasks' counts and write ``curation.json``, ``curation.html`` and ``removed/REASON.jsonl``.

    Raises:
        DataError: the documents read are not those written and those removed.
    """
    from salamandra_data.curation.report_page import report_page

    total = _total(work)
    read, written = _sum(total.read), _sum(total.written)
    removed = {reason: _sum(total.removals[reason].counts) for reason in REASONS}
    if read.documents != written.documents + sum(tally.documents for tally in removed.values()):
        raise DataError(
            f"{work.directory}: {read.documents:,} documents were read, but {written.documents:,} written and "
            f"{sum(tally.documents for tally in removed.values()):,} removed\n  remove this directory and start again"
        )
    report = _values(work, total)
    out = work.settings.out
    for reason in REASONS:
        with atomic_file(out / SAMPLES / f"{reason}.jsonl") as stream:
            for shown in total.removals[reason].sample():
                stream.write(orjson.dumps(shown) + b"\n")
    samples = {reason: total.removals[reason].sample() for reason in REASONS}
    atomic_write_bytes(out / PAGE, report_page(report, samples))
    atomic_write_bytes(out / REPORT, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


def _total(work: Work) -> FileCount:
    total = work.new_count()
    for stage in (FILTER, "write"):
        for number in range(len(work.files)):
            part: FileCount = pickle.loads(work.count_file(stage, number).read_bytes())
            for mine, theirs in (
                (total.read, part.read),
                (total.written, part.written),
                (total.repeated, part.repeated),
            ):
                for language, tally in theirs.items():
                    mine.setdefault(language, Tally()).add(tally.documents, tally.utf8_bytes)
            for reason in REASONS:
                total.removals[reason].merge([part.removals[reason]])
            for language, kinds in part.personal_data.items():
                total.personal_data.setdefault(language, Counter()).update(kinds)
            for language, bins in part.scores.items():
                known = total.scores.setdefault(language, [0] * len(bins))
                total.scores[language] = [one + other for one, other in zip(known, bins, strict=True)]
    return total


def _sum(tallies: dict[str, Tally]) -> Tally:
    total = Tally()
    for tally in tallies.values():
        total.add(tally.documents, tally.utf8_bytes)
    return total


def _values(work: Work, total: FileCount) -> dict[str, Any]:
    settings, harm = work.settings, work.settings.harm
    return {
        "format": "salamandra-curation-1",
        "settings": {
            "identify_language": settings.identify_language,
            "check_language": settings.check_language,
            "min_score": settings.min_score,
            "harm": {"function": harm.function, "most": harm.most} if harm else None,
            "mask_personal_data": settings.mask_personal_data,
            "exact": settings.exact,
            "near": settings.near,
            "paragraphs": settings.paragraphs,
            "across_sources": settings.across_sources,
            "decontaminate": [str(path) for path in settings.decontaminate],
            "ngram": settings.ngram,
            "min_words": settings.min_words,
            "seed": settings.seed,
        },
        "task_files": [asdict(tasks) for tasks in work.task_files],
        "input_files": [str(path) for path in work.files],
        "read": _by_language(total.read),
        "written": _by_language(total.written),
        "removed": {reason: _by_language(total.removals[reason].counts) for reason in REASONS},
        "repeated_paragraphs": {
            language: {"paragraphs": tally.documents, "utf8_bytes": tally.utf8_bytes}
            for language, tally in sorted(total.repeated.items())
        },
        "personal_data": {
            language: dict(sorted(kinds.items())) for language, kinds in sorted(total.personal_data.items())
        },
        "score_histogram": dict(sorted(total.scores.items())),
    }


def _by_language(tallies: dict[str, Tally]) -> dict[str, dict[str, int]]:
    return {language: asdict(tally) for language, tally in sorted(tallies.items())}
