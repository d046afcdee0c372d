"""Drawing with matplotlib into pages that need nothing else."""

from __future__ import annotations

import io
from typing import Any

from salamandra_data.errors import DataError

PAGE_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}pre{white-space:pre-wrap;background:#f6f6f6;padding:.5rem;margin:.3rem 0}
summary{cursor:pointer}svg{max-width:100%;height:auto}"""


def figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes; nothing global is touched.

    Raises:
        DataError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("plots need matplotlib\n  pip install 'megatron-salamandra[data]'") from error
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
