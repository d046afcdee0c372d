"""A study on disk: CSV, JSON, plots, and one page with all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.figures import html_page, html_table, png, svg
from salamandra_data.tokenizer_study.fertility import Fertility
from salamandra_data.tokenizer_study.plots import fertility_plot
from salamandra_data.tokenizer_study.report import (
    COLUMNS,
    comparison,
    fertility_csv,
    fertility_json,
    fertility_rows,
)


def write_study(
    out: Path,
    results: Sequence[Fertility],
    conditions: dict[str, Any],
    *,
    title: str = "Tokenizer fertility",
    more_plots: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write ``fertility.csv``, ``fertility.json``, plots as SVG and PNG, and ``index.html`` into ``out``.

    Args:
        conditions: what was measured, for whoever wants to do it again.
        more_plots: matplotlib figures by file name without ending; they come first on the page.
    Returns:
        the files.
    """
    heading, rows, means = comparison(results)
    plots = {**(more_plots or {}), "fertility": fertility_plot(results)}
    drawings = {name: svg(figure) for name, figure in plots.items()}
    everything = [
        ["-" if row[column] is None else f"{row[column]}" for column in COLUMNS]
        for row in fertility_rows(results)
    ]
    page = [
        *drawings.values(),
        "<h2>Tokens per word</h2>" if len(heading) > 2 else "",
        html_table(heading, [*rows, means]),
        "<h2>Conditions</h2>",
        html_table(("", ""), [[key, f"{value}"] for key, value in conditions.items()]),
        "<details><summary>Everything measured</summary>",
        html_table(COLUMNS, everything),
        "</details>",
    ]
    files = {
        "fertility.csv": fertility_csv(results),
        "fertility.json": fertility_json(results, conditions),
        "index.html": html_page(title, page),
    }
    for name, figure in plots.items():
        files[f"{name}.svg"] = drawings[name].encode()
        files[f"{name}.png"] = png(figure)
    for name, contents in files.items():
        atomic_write_bytes(out / name, contents)
    return [out / name for name in files]
