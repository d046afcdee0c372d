"""The page that shows what a curation run removed, and why: plots, tables, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salamandra_data.curation.counts import UNREADABLE
from salamandra_data.curation.curation_filter import Section
from salamandra_data.figures import figure, html_page, without_frame

_SHOWN_CHARACTERS = 600
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_COLOURS = ("#4c78a8", "#f58518", "#e45756", "#72b7b2", "#54a24b", "#eeca3b", "#b279a2", "#ff9da6", "#9d755d")
_KEPT = "#d9d9d9"
_ROW_INCHES = 0.24

_TEMPLATE = """
<p>{{ read.documents }} documents ({{ read.size }} of text) read from {{ files | length }} files,
<b>{{ kept.documents }} kept ({{ kept.documents_share }})</b>, with {{ kept.size }} ({{ kept.size_share }}) of text.</p>
{% if reasons %}{{ table(("removed because", "documents", "of all read", "text"), reasons) }}{% endif %}
<h2>What became of each language's documents</h2>
{% if fates %}{{ plot(fates) }}{% endif %}
{% call folded("the numbers") %}{{ table(*documents) }}{% endcall %}
<h2>Text by language</h2>
<p>Repeated paragraphs are taken out of documents that stay.</p>
{{ table(*text) }}
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for drawing in section.plots %}{{ plot(drawing) }}{% endfor %}
{% for heading, rows in section.tables %}{{ table(heading, rows) }}{% endfor %}
{% endfor %}
<h2>Removed documents, a sample</h2>
{% for title, sample in samples %}
{% call folded(title) %}
{% for entry in sample %}
<p><b>{{ entry.language }}</b> {{ entry.id }}{% if entry.detail %} · {% endif %}<i>{{ entry.detail }}</i></p>
{% if entry.text.strip() %}<pre>{{ beginning(entry.text) }}</pre>{% endif %}
{% endfor %}
{% endcall %}
{% endfor %}
<h2>Settings</h2>
{{ table(("setting", "value"), settings) }}
{% call folded(files | length ~ " input files") %}<pre>{{ files | join("\n") }}</pre>{% endcall %}
"""


def curation_page(
    report: Mapping[str, Any], samples: Mapping[str, list[dict[str, Any]]], sections: Sequence[Section]
) -> bytes:
    """A self-contained HTML page.

    Args:
        report: what ``curation.json`` holds.
        samples: removed documents by reason.
        sections: of the filters.
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
    read, kept = _sum(report["read"]), _sum(report["written"])
    explanations = report["reasons"]
    user_filters = [
        (chosen["name"], _value({"class": chosen["class"], **chosen["options"]}))
        for chosen in report["user_filters"]
    ]
    return html_page(
        "Curation",
        _TEMPLATE,
        read={"documents": f"{read[0]:,}", "size": _size(read[1])},
        kept={
            "documents": f"{kept[0]:,}",
            "documents_share": _share(kept[0], read[0]),
            "size": _size(kept[1]),
            "size_share": _share(kept[1], read[1]),
        },
        reasons=[
            (f"{reason}: {explanations[reason]}", f"{count:,}", _share(count, read[0]), _size(size))
            for reason, (count, size) in ((reason, _sum(by)) for reason, by in report["removed"].items())
            if count
        ],
        fates=_fate_plot(documents, languages) if languages else None,
        documents=_documents_table(documents, languages),
        text=_text_table(report, languages),
        sections=sections,
        samples=[
            (f"{reason}: {explanations[reason]} ({len(shown)})", shown)
            for reason, shown in samples.items()
            if shown
        ],
        settings=[(key, _value(value)) for key, value in report["settings"].items()] + user_filters,
        files=report["input_files"],
        beginning=_beginning,
    )


def _fate_plot(fates: Mapping[str, Mapping[str, int]], languages: list[str]) -> Any:
    """Bars of shares by language, of those kept and of those removed by each reason."""
    drawing, axes = figure(10, 1.2 + _ROW_INCHES * len(languages))
    totals = [max(1, sum(counts.get(language, 0) for counts in fates.values())) for language in languages]
    left = [0.0] * len(languages)
    for number, (fate, counts) in enumerate(fates.items()):
        colour = _KEPT if number == 0 else _COLOURS[(number - 1) % len(_COLOURS)]
        shares = [counts.get(language, 0) / total for language, total in zip(languages, totals, strict=True)]
        if any(shares):
            axes.barh(languages, shares, left=left, label=fate, color=colour)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(languages) - 0.4, -0.6)
    axes.set_xlabel("share of documents")
    without_frame(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False)
    return drawing


_Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def _documents_table(fates: Mapping[str, Mapping[str, int]], languages: list[str]) -> _Table:
    rows = {language: [by.get(language, 0) for by in fates.values()] for language in languages}
    rows["all"] = [sum(by.values()) for by in fates.values()]
    cells = [
        (language, *(f"{count:,}" if count else "" for count in counts), _share(counts[0], sum(counts)))
        for language, counts in rows.items()
    ]
    return ("language", *fates, "kept"), cells


def _text_table(report: Mapping[str, Any], languages: list[str]) -> _Table:
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
    return ("language", "read", "kept", "of read", "removed", "repeated paragraphs", "their text"), rows


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


def _sum(tallies: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
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
