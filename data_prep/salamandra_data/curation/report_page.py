"""The page that shows what a curation run removed, and why: plots, tables, and samples."""

from __future__ import annotations

import html
from typing import Any

from salamandra_data.curation.removals import UNREADABLE
from salamandra_data.curation.report_plots import fate_plot, score_plot
from salamandra_data.figures import html_page, html_table

_SHOWN_CHARACTERS = 600
_REASONS = {
    "malformed": "lines that cannot be read",
    "empty": "no text",
    "language": "in another language than declared, or in none that can be told",
    "contaminated": "words in a row that are in a benchmark",
    "score": "low quality score",
    "harm": "high harm score",
    "exact": "the text of an earlier document",
    "near": "nearly the text of an earlier document",
    "paragraphs": "too little left without repeated paragraphs",
}
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def report_page(report: dict[str, Any], samples: dict[str, list[dict[str, Any]]]) -> bytes:
    """A self-contained HTML page.

    Args:
        report: what ``curation.json`` holds.
        samples: removed documents by reason.
    """
    fates = {"kept": report["written"], **report["removed"]}
    documents = {
        fate: {language: tally["documents"] for language, tally in by.items() if language != UNREADABLE}
        for fate, by in fates.items()
    }
    documents = {fate: counts for fate, counts in documents.items() if counts or fate == "kept"}
    languages = sorted(
        {language for by in (report["read"], *fates.values()) for language in by} - {UNREADABLE}
    )
    parts = [
        _headline(report),
        _reasons(report),
        "<h2>What became of each language's documents</h2>",
        fate_plot(documents, languages),
        _documents_table(documents, languages),
        "<h2>Text by language</h2>",
        "<p>Repeated paragraphs are taken out of documents that stay.</p>",
        _text_table(report, languages),
    ]
    if report["score_histogram"]:
        parts += [
            "<h2>Quality scores</h2>",
            score_plot(report["score_histogram"], report["settings"]["min_score"]),
        ]
    if report["personal_data"]:
        parts += ["<h2>Personal data masked</h2>", _personal_data(report)]
    if report["task_files"]:
        parts += ["<h2>Benchmarks looked for</h2>", _task_files(report)]
    parts += [
        "<h2>Removed documents, a sample</h2>",
        *(_samples(reason, shown) for reason, shown in samples.items()),
        "<h2>Settings</h2>",
        html_table(("setting", "value"), [(key, _value(value)) for key, value in report["settings"].items()]),
        _input_files(report["input_files"]),
    ]
    return html_page("Curation", list(filter(None, parts)))


def _headline(report: dict[str, Any]) -> str:
    (read, read_bytes), (kept, kept_bytes) = _sum(report["read"]), _sum(report["written"])
    return (
        f"<p>{read:,} documents ({_size(read_bytes)} of text) read from {len(report['input_files']):,} files, "
        f"<b>{kept:,} kept ({_share(kept, read)})</b>, with {_size(kept_bytes)} ({_share(kept_bytes, read_bytes)}) "
        "of text.</p>"
    )


def _reasons(report: dict[str, Any]) -> str:
    read, _ = _sum(report["read"])
    rows = []
    for reason, by in report["removed"].items():
        documents, size = _sum(by)
        if documents:
            rows.append(
                (f"{reason}: {_REASONS[reason]}", f"{documents:,}", _share(documents, read), _size(size))
            )
    return html_table(("removed because", "documents", "of all read", "text"), rows) if rows else ""


def _documents_table(fates: dict[str, dict[str, int]], languages: list[str]) -> str:
    rows = {language: [by.get(language, 0) for by in fates.values()] for language in languages}
    rows["all"] = [sum(counts) for counts in zip(*rows.values(), strict=True)]
    cells = [
        (language, *(f"{count:,}" if count else "" for count in counts), _share(counts[0], sum(counts)))
        for language, counts in rows.items()
    ]
    return _folded("the numbers", html_table(("language", *fates, "kept"), cells))


def _text_table(report: dict[str, Any], languages: list[str]) -> str:
    """Texts that are kept lose bytes to marks and repeated paragraphs: kept and removed are not all that was read."""
    nothing = {"documents": 0, "utf8_bytes": 0}
    rows = []
    for language in languages:
        read = report["read"].get(language, nothing)["utf8_bytes"]
        kept = report["written"].get(language, nothing)["utf8_bytes"]
        removed = sum(by.get(language, nothing)["utf8_bytes"] for by in report["removed"].values())
        taken = report["repeated_paragraphs"].get(language, {"paragraphs": 0, "utf8_bytes": 0})
        repeated = (
            (f"{taken['paragraphs']:,}", _size(taken["utf8_bytes"])) if taken["paragraphs"] else ("", "")
        )
        rows.append((language, _size(read), _size(kept), _share(kept, read), _size(removed), *repeated))
    heading = ("language", "read", "kept", "of read", "removed", "repeated paragraphs", "their text")
    return html_table(heading, rows)


def _personal_data(report: dict[str, Any]) -> str:
    kinds = sorted({kind for counts in report["personal_data"].values() for kind in counts})
    rows = [
        (language, *(f"{counts[kind]:,}" if kind in counts else "" for kind in kinds))
        for language, counts in report["personal_data"].items()
    ]
    return html_table(("language", *kinds), rows)


def _task_files(report: dict[str, Any]) -> str:
    words = report["settings"]["ngram"]
    rows = [
        (entry["path"], *(f"{entry[key]:,}" for key in ("items", "too_short", "ngrams")))
        for entry in report["task_files"]
    ]
    return html_table(("file", "items", f"too short, under {words} words", "different n-grams"), rows)


def _samples(reason: str, shown: list[dict[str, Any]]) -> str:
    if not shown:
        return ""
    items = "".join(
        f"<p><b>{html.escape(entry['language'])}</b> {html.escape(entry['id'])}"
        f"{' · ' if entry['detail'] else ''}<i>{html.escape(entry['detail'])}</i></p>"
        + (f"<pre>{html.escape(_beginning(entry['text']))}</pre>" if entry["text"].strip() else "")
        for entry in shown
    )
    return _folded(f"{reason}: {_REASONS[reason]} ({len(shown)})", items)


def _input_files(files: list[str]) -> str:
    return _folded(f"{len(files):,} input files", f"<pre>{html.escape(chr(10).join(files))}</pre>")


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} …"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "none" if value is None else str(value)


def _sum(tallies: dict[str, dict[str, int]]) -> tuple[int, int]:
    """Documents and bytes."""
    return sum(tally["documents"] for tally in tallies.values()), sum(
        tally["utf8_bytes"] for tally in tallies.values()
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _size(utf8_bytes: int) -> str:
    for size, unit in _UNITS:
        if utf8_bytes >= size:
            return f"{utf8_bytes / size:.1f} {unit}"
    return f"{utf8_bytes} B"
