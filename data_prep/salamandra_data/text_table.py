"""Plain text for people: aligned tables, counts and lists in sentences, and text that a terminal must not obey."""

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


def count_of(number: int, noun: str) -> str:
    """``1 shard``, ``2 shards``, ``1,000 shards``: for nouns whose plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first of ``names``, and whether there are more."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def harmless(text: str) -> str:
    """``text`` with control characters as escapes, such as ``\\x1b``; line ends and tabs stay.

    What a terminal is sent may otherwise move its cursor, change its title or hide what stands there.
    """
    return text.translate(_ESCAPES)


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
