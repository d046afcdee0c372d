"""Aligned plain-text tables."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None
) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right.

    ``total`` is one more row, set off by a line.
    """
    body = [*rows, *([total] if total is not None else [])]
    widths = [max(len(row[column]) for row in [heading, *body]) for column in range(len(heading))]

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    lines = [line(heading), rule, *map(line, rows)]
    if total is not None:
        lines += [rule, line(total)]
    return "\n".join(lines)
