"""The closing plot: bits per byte of each language before the first step and after the last."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_salamandra.quickstart.closing_table import AVERAGES, LanguageResult
from salamandra_data.figures import figure, svg

_BEFORE, _AFTER, _MEAN = "#9aa5b1", "#0b6e99", "#c2410c"


def closing_plot(results: Sequence[LanguageResult]) -> str:
    """An SVG element with a line per language, from before to after, the most improved at the top.

    Raises:
        DataError: matplotlib is missing.
    """
    languages = sorted(
        (result for result in results if result.language not in AVERAGES),
        key=lambda result: result.bits_per_byte_after / result.bits_per_byte_before,
        reverse=True,
    )
    drawing, axes = figure(8, 0.19 * len(languages) + 1.1)
    places = range(len(languages))
    before = [result.bits_per_byte_before for result in languages]
    after = [result.bits_per_byte_after for result in languages]
    axes.hlines(places, after, before, color="#d5dbe1", linewidth=2, zorder=1)
    axes.scatter(before, places, s=18, color=_BEFORE, label="before the first step", zorder=2)
    axes.scatter(after, places, s=18, color=_AFTER, label="after the last", zorder=2)
    for result in results:
        if result.language == "macro":
            axes.axvline(
                result.bits_per_byte_after, color=_MEAN, linewidth=0.8, linestyle=":", label="mean, after"
            )
    axes.set_yticks(places, [result.language for result in languages], fontsize=8)
    axes.set_ylim(-0.7, len(languages) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel("bits per byte of held-out text (less is better)")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    return svg(drawing)
