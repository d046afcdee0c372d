"""Drawing with matplotlib into pages that need nothing else."""

from __future__ import annotations

import html
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

from salamandra_data.errors import DataError

PAGE_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}pre{white-space:pre-wrap;background:#f6f6f6;padding:.5rem;margin:.3rem 0}
summary{cursor:pointer}svg{max-width:100%;height:auto}"""


def check_matplotlib() -> None:
    """Refuse to start what ends in a plot.

    Raises:
        DataError: matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise DataError("plots need matplotlib\n  pip install 'megatron-salamandra[data]'")


def figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes; nothing global is touched.

    Raises:
        DataError: matplotlib is missing.
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


def html_page(title: str, parts: Sequence[str]) -> bytes:
    """One page that needs nothing else; ``parts`` are HTML already."""
    head = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{PAGE_STYLE}</style>"
    )
    return "\n".join([head, f"<h1>{html.escape(title)}</h1>", *parts, ""]).encode()


def html_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as text, escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f"<table><tr>{head}</tr>\n{body}</table>"
