"""The two plots of a curation run: what became of documents, and how they scored."""

from __future__ import annotations

from typing import Any

from salamandra_data.figures import figure, svg

_COLOURS = ("#4c78a8", "#f58518", "#e45756", "#72b7b2", "#54a24b", "#eeca3b", "#b279a2", "#ff9da6", "#9d755d")
_KEPT = "#d9d9d9"
_ROW_INCHES = 0.24


def fate_plot(fates: dict[str, dict[str, int]], languages: list[str]) -> str:
    """Bars of shares by language, as SVG.

    Args:
        fates: documents by language, of those kept and of those removed by each reason.
        languages: in their order.
    """
    drawing, axes = figure(10, 1.2 + _ROW_INCHES * len(languages))
    totals = [max(1, sum(counts.get(language, 0) for counts in fates.values())) for language in languages]
    left = [0.0] * len(languages)
    for (fate, counts), colour in zip(fates.items(), (_KEPT, *_COLOURS), strict=False):
        shares = [counts.get(language, 0) / total for language, total in zip(languages, totals, strict=True)]
        if any(shares):
            axes.barh(languages, shares, left=left, label=fate, color=colour)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(languages) - 0.4, -0.6)
    axes.set_xlabel("share of documents")
    _without_frame(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False)
    return svg(drawing)


def score_plot(histogram: dict[str, list[int]], least: float | None) -> str:
    """Shares of scores by language, darker for more documents, as SVG.

    Args:
        histogram: documents by language and bin of [0, 1].
        least: score that is kept.
    """
    drawing, axes = figure(10, 1.0 + _ROW_INCHES * len(histogram))
    rows = [[100 * count / max(1, sum(bins)) for count in bins] for bins in histogram.values()]
    image = axes.imshow(rows, aspect="auto", cmap="Blues", extent=(0, 1, len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(histogram)), list(histogram))
    axes.set_xlabel(
        "quality score" + ("" if least is None else f"; removed left of the line, below {least:g}")
    )
    if least is not None:
        axes.axvline(least, color="#e45756")
    _without_frame(axes)
    drawing.colorbar(image, ax=axes, fraction=0.02, pad=0.02, label="% of the language's documents")
    return svg(drawing)


def _without_frame(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
