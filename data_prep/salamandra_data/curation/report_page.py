"""The page that shows what a curation run removed, and why: plots, a table, and samples."""

from __future__ import annotations

import html
from typing import Any

from salamandra_data.figures import figure, html_page, html_table, svg

_COLOURS = ("#4c78a8", "#f58518", "#e45756", "#72b7b2", "#54a24b", "#eeca3b", "#b279a2", "#ff9da6", "#9d755d")
_KEPT = "#d9d9d9"
_SHOWN_CHARACTERS = 600


def report_page(report: dict[str, Any], samples: dict[str, list[dict[str, Any]]]) -> bytes:
    """A self-contained HTML page.

    Args:
        report: what ``curation.json`` holds.
        samples: removed documents by reason.
    """
    parts = [
        _headline(report),
        "<h2>What became of each language's documents</h2>",
        _fate_plot(report),
        _table(report),
    ]
    if report["score_histogram"]:
        parts += ["<h2>Quality scores</h2>", _score_plot(report)]
    if report["personal_data"]:
        parts += ["<h2>Personal data masked</h2>", _personal_data(report)]
    if report["task_files"]:
        parts += ["<h2>Benchmarks looked for</h2>", _task_files(report)]
    parts += [
        "<h2>Removed documents, a sample</h2>",
        *(_samples(reason, shown) for reason, shown in samples.items()),
    ]
    return html_page("Curation", list(filter(None, parts)))


def _headline(report: dict[str, Any]) -> str:
    read = _documents(report["read"])
    written = _documents(report["written"])
    return (
        f"<p>{read:,} documents read from {len(report['input_files']):,} files, {written:,} kept "
        f"({written / max(read, 1):.1%}).</p>"
    )


def _documents(tallies: dict[str, dict[str, int]]) -> int:
    return sum(tally["documents"] for tally in tallies.values())


def _languages(report: dict[str, Any]) -> list[str]:
    removed = (language for tallies in report["removed"].values() for language in tallies)
    return sorted({*report["written"], *removed})


def _fate_plot(report: dict[str, Any]) -> str:
    languages = _languages(report)
    drawing, axes = figure(10, 1.2 + 0.24 * len(languages))
    totals = [
        max(
            1,
            sum(tallies.get(language, {"documents": 0})["documents"] for tallies in _fates(report).values()),
        )
        for language in languages
    ]
    left = [0.0] * len(languages)
    for (fate, tallies), colour in zip(_fates(report).items(), (_KEPT, *_COLOURS), strict=False):
        shares = [
            tallies.get(language, {"documents": 0})["documents"] / total
            for language, total in zip(languages, totals, strict=True)
        ]
        if any(shares):
            axes.barh(languages, shares, left=left, label=fate, color=colour)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of documents")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.6 / drawing.get_figheight()), ncols=5, frameon=False
    )
    return svg(drawing)


def _fates(report: dict[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    return {"kept": report["written"], **report["removed"]}


def _score_plot(report: dict[str, Any]) -> str:
    histogram = report["score_histogram"]
    drawing, axes = figure(10, 1.0 + 0.22 * len(histogram))
    rows = [[count / max(1, sum(bins)) for count in bins] for bins in histogram.values()]
    image = axes.imshow(rows, aspect="auto", cmap="Blues", extent=(0, 1, len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(histogram)), list(histogram))
    axes.set_xlabel("quality score; darker: more of the language's documents")
    if report["settings"]["min_score"] is not None:
        axes.axvline(report["settings"]["min_score"], color="#e45756")
    drawing.colorbar(image, ax=axes, fraction=0.02)
    return svg(drawing)


def _table(report: dict[str, Any]) -> str:
    fates = {name: tallies for name, tallies in _fates(report).items() if tallies or name == "kept"}
    counts = {
        language: [tallies.get(language, {"documents": 0})["documents"] for tallies in fates.values()]
        for language in _languages(report)
    }
    counts["all"] = [sum(row) for row in zip(*counts.values(), strict=True)]
    rows = [(language, *(f"{count:,}" for count in row)) for language, row in counts.items()]
    return html_table(("language", *fates), rows)


def _personal_data(report: dict[str, Any]) -> str:
    kinds = sorted({kind for counts in report["personal_data"].values() for kind in counts})
    rows = [
        (language, *(f"{counts.get(kind, 0):,}" for kind in kinds))
        for language, counts in report["personal_data"].items()
    ]
    return html_table(("language", *kinds), rows)


def _task_files(report: dict[str, Any]) -> str:
    words = report["settings"]["ngram"]
    rows = [
        (entry["path"], *(f"{entry[key]:,}" for key in ("items", "too_short", "ngrams")))
        for entry in report["task_files"]
    ]
    return html_table(
        ("file", "items", f"of them too short (under {words} words)", "different n-grams"), rows
    )


def _samples(reason: str, shown: list[dict[str, Any]]) -> str:
    if not shown:
        return ""
    items = "".join(
        f"<p><b>{html.escape(entry['language'])}</b> {html.escape(entry['id'])} {html.escape(entry['detail'])}</p>"
        f"<pre>{html.escape(entry['text'][:_SHOWN_CHARACTERS])}</pre>"
        for entry in shown
    )
    return f"<details><summary>{html.escape(reason)}: {len(shown)}</summary>{items}</details>"
