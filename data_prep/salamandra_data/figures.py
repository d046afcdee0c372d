"""Drawing with matplotlib, and pages that need nothing else."""

from __future__ import annotations

import io
from typing import Any

from megatron_salamandra.foundation.packages import check_installed

_LAYOUT = """<!doctype html><meta charset=utf-8><title>{{ title }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}pre{white-space:pre-wrap;background:#f6f6f6;padding:.5rem;margin:.3rem 0}
summary{cursor:pointer}svg{max-width:100%;height:auto}</style>
{% macro table(heading, rows) %}
<table><tr>{% for cell in heading %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endmacro %}
{% macro folded(title) %}<details><summary>{{ title }}</summary>{{ caller() }}</details>{% endmacro %}
<h1>{{ title }}</h1>
"""


def check_matplotlib() -> None:
    """Refuse to start what ends in a plot.

    Raises:
        MissingPackage: matplotlib is missing.
    """
    check_installed("matplotlib", extra="data", purpose="plots")


def figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes; nothing global is touched.

    Raises:
        MissingPackage: matplotlib is missing.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height))
    return drawing, drawing.add_subplot()


def svg(drawing: Any) -> str:
    """A figure as an SVG element; the same figure gives the same text."""
    import matplotlib

    stream = io.StringIO()
    # Ids from a fixed salt, and no date.
    with matplotlib.rc_context({"svg.hashsalt": "figure"}):
        drawing.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def png(drawing: Any) -> bytes:
    """A figure as a PNG file; the same figure gives the same bytes."""
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def without_frame(axes: Any) -> None:
    """Leave the line at the bottom only."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def html_page(title: str, template: str, **values: Any) -> bytes:
    """One page that needs nothing else.

    Args:
        title: of the page.
        template: of Jinja, for what is below the title. ``table(heading, rows)``, ``folded(title)`` (to be called with
            a content) and ``plot(figure)`` are there. All text is escaped.
        values: that it shows.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    page = environment.from_string(_LAYOUT + template)
    # An SVG is markup already, and matplotlib escapes the text in it.
    return page.render(title=title, plot=lambda drawing: Markup(svg(drawing)), **values).encode(  # nosec B704
        errors="backslashreplace"
    )
