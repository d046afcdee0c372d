"""A study on disk: CSV, JSON, plots, and one page with all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.figures import html_page, png, svg
from salamandra_data.tokenizer_study.fertility import Fertility
from salamandra_data.tokenizer_study.plots import fertility_plot
from salamandra_data.tokenizer_study.report import (
    COLUMNS,
    comparison,
    fertility_csv,
    fertility_json,
    fertility_rows,
)

_TEMPLATE = """
{% for drawing in plots %}{{ plot(drawing) }}{% endfor %}
{% if heading | length > 2 %}<h2>Tokens per word</h2>{% endif %}
{{ table(heading, rows) }}
<h2>Conditions</h2>
{{ table(("", ""), conditions) }}
{% call folded("Everything measured") %}{{ table(columns, everything) }}{% endcall %}
"""


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
    files = {
        "fertility.csv": fertility_csv(results),
        "fertility.json": fertility_json(results, conditions),
        "index.html": html_page(
            title,
            _TEMPLATE,
            plots=plots.values(),
            heading=heading,
            rows=[*rows, means],
            conditions=conditions.items(),
            columns=COLUMNS,
            everything=everything,
        ),
    }
    for name, figure in plots.items():
        files[f"{name}.svg"] = drawings[name].encode()
        files[f"{name}.png"] = png(figure)
    for name, contents in files.items():
        atomic_write_bytes(out / name, contents)
    return [out / name for name in files]
