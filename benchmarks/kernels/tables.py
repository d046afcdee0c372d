"""Markdown tables of measured results, as kernels/README.md shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

GIB = 1 << 30
NOTHING = "not measured"
Row = dict[str, Any]


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """One Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def unique(values: Iterable[str]) -> list[str]:
    """The values without repetition, in their order."""
    return list(dict.fromkeys(values))


def short_error(row: Row) -> str:
    """What a cell says of a row that failed."""
    error: str = row["error"]
    if "OutOfMemoryError" in error:
        return "out of memory"
    return error if error.startswith("not measured") or "not installed" in error else "failed"


def operations_table(rows: list[Row], operation: str) -> str:
    """Shapes down, implementations across: share of copy forward + backward (forward alone)."""
    rows = [row for row in rows if row["operation"] == operation]
    names = unique(row["implementation"] for row in rows)
    cells = {(row["shape"], row["implementation"]): row for row in rows}

    def cell(row: Row | None) -> str:
        if row is None:
            return NOTHING
        if "error" in row:
            return short_error(row)
        mark = "*" if row["host_bound"] else ""
        return f"{row['share_of_copy']:.2f} ({row['forward_share_of_copy']:.2f}){mark}"

    def milliseconds(row: Row | None) -> str:
        return NOTHING if row is None or "error" in row else f"{row['forward_backward_ms']:.3f}"

    return table(
        [operation, "ours, ms", *names],
        (
            [shape, milliseconds(cells.get((shape, "ours"))), *(cell(cells.get((shape, n))) for n in names)]
            for shape in unique(row["shape"] for row in rows)
        ),
    )


def head_table(rows: list[Row]) -> str:
    """Shapes down, implementations across: time as a multiple of ours, peak memory beyond weight and input."""
    rows = [row for row in rows if row["operation"] == "head"]
    names = unique(row["implementation"] for row in rows)
    cells = {(row["shape"], row["implementation"]): row for row in rows}

    def cell(shape: str, name: str) -> str:
        row, ours = cells.get((shape, name)), cells.get((shape, "ours"), {})
        if row is None:
            return NOTHING
        if "error" in row:
            return short_error(row)
        peak = row["peak_extra_bytes"]
        memory = "" if peak is None else f", {peak / GIB:.2f} GiB"
        if name == "ours" or "forward_backward_ms" not in ours:
            return f"{row['forward_backward_ms']:.2f} ms{memory}"
        return f"{row['forward_backward_ms'] / ours['forward_backward_ms']:.2f}{memory}"

    shapes = unique(row["shape"] for row in rows)
    return table(["head", *names], ([shape, *(cell(shape, name) for name in names)] for shape in shapes))


def training_table(rows: list[Row]) -> str:
    """One row for each variant; time and memory of the first measured are 1."""

    def cells(row: Row) -> list[str]:
        if "error" in row:
            return [row["name"], row["what"], short_error(row), *["" for _ in range(5)]]
        return [
            row["name"],
            row["what"],
            f"{row['seconds'] * 1000:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            NOTHING if row["mfu"] is None else f"{100 * row['mfu']:.1f} %",
            f"{row['peak_gib']:.1f}",
            f"{row['time_share']:.3f}",
            f"{row['peak_share']:.3f}",
        ]

    header = ["variant", "what", "ms a step", "tokens/s", "MFU", "peak, GiB", "time", "peak"]
    return table(header, (cells(row) for row in rows))


def document(operations: dict[str, Any] | None, training: list[dict[str, Any]]) -> str:
    """All tables of a run, with where and when it was.

    Args:
        operations: the file that operations.py wrote, if it did.
        training: the files of training_step.py.
    """
    parts = []
    for source in [operations, *training]:
        if source and source.get("environment"):
            found = source["environment"]
            versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
            parts.append(f"{found['device']}, {found['date']}; {versions}.")
            break
    if operations:
        copy = operations["copy_bytes_per_second"] / 1e12
        parts.append(
            f"Share of the rate of a copy ({copy:.2f} TB/s, read + written), forward + backward (forward alone). "
            "\\*: the device waited for the host."
        )
        rows = operations["results"]
        done = unique(row["operation"] for row in rows)
        parts += [operations_table(rows, name) for name in done if name != "head"]
        if "head" in done:
            parts.append(
                "Output layer and loss, forward + backward: time, of ours; peak memory beside the weight."
            )
            parts.append(head_table(rows))
    for steps in training:
        parts.append(f"Training step, {' '.join([steps['config'], *steps['overrides']])}:")
        parts.append(training_table(steps["results"]))
    return "\n\n".join(parts) + "\n"
