"""The two fitted constants, and how well rows are foreseen that took no part in the fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

from megatron_salamandra.forecast.published import PublishedRow, published_rows
from megatron_salamandra.forecast.rates import Rates

_FITTED = ("matrix_share", "fp8_share")
_START, _FIRST_STEP = 600, 64
"""In thousandths, as both constants are fitted: all fits look at the same few points, which are computed once."""


@dataclass(frozen=True)
class RowError:
    """One published row beside what is foreseen without it.

    Attributes:
        predicted: with constants fitted to all rows but this one.
        without_source: the same with constants fitted to the rows of other sources alone.
    """

    row: PublishedRow
    predicted: float
    without_source: float

    @property
    def error(self) -> float:
        """Relative: 0.1 is ten per cent too many tokens per second."""
        return self.predicted / self.row.value - 1

    @property
    def error_without_source(self) -> float:
        """The same where a source's other rows are unknown too."""
        return self.without_source / self.row.value - 1


def fit(rows: Sequence[PublishedRow]) -> Rates:
    """The constants that foresee ``rows`` best, by the squared logarithm of prediction over measurement.

    A search along one constant after the other with steps that shrink to a thousandth; the loss is smooth and has one
    valley. A constant that no row depends on stays where the search begins.
    """
    point, step = dict.fromkeys(_FITTED, _START), _FIRST_STEP
    best = _loss(rows, point)
    while step:
        moved = False
        for name in _FITTED:
            for sign in (1, -1):
                other = {**point, name: point[name] + sign * step}
                loss = _loss(rows, other)
                if loss < best:
                    point, best, moved = other, loss, True
                    break
        if not moved:
            step //= 2
    return _rates(point)


@cache
def row_errors() -> tuple[RowError, ...]:
    """Every published row, foreseen without itself and without its source."""
    rows = published_rows()

    def foreseen(row: PublishedRow, known: Callable[[PublishedRow], bool]) -> float:
        return row.predicted(fit([other for other in rows if known(other)]))

    return tuple(
        RowError(
            row,
            foreseen(row, lambda other, row=row: other is not row),  # type: ignore[misc]
            foreseen(row, lambda other, row=row: other.source != row.source),  # type: ignore[misc]
        )
        for row in rows
    )


def median_error(errors: Sequence[float]) -> float:
    """Median of the absolute relative errors."""
    return median(map(abs, errors))


def accuracy_table() -> str:
    """The table of ``docs/planning.md``: every row, what is foreseen without it, and the error."""
    lines = [
        "| # | model and layout | unit | measured | foreseen | error | without its source |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for one in row_errors():
        row = one.row
        unit, digits = ("TFLOP/s", 1) if row.counts_flops else ("token/s", 0)
        lines.append(
            f"| {row.name} | [{row.title}]({row.url}) | {unit} | {row.value:,.{digits}f} | "
            f"{one.predicted:,.{digits}f} | {one.error:+.1%} | {one.error_without_source:+.1%} |"
        )
    errors, others = (
        [getattr(one, name) for one in row_errors()] for name in ("error", "error_without_source")
    )
    lines.append(
        f"| | **median of absolute errors** | | | | **{median_error(errors):.1%}** | **{median_error(others):.1%}** |"
    )
    return "\n".join(lines)


def _rates(point: dict[str, int]) -> Rates:
    return replace(Rates(), **{name: value / 1000 for name, value in point.items()})


def _loss(rows: Sequence[PublishedRow], point: dict[str, int]) -> float:
    return sum(_squared_error(row, tuple(point.values())) for row in rows)


@cache
def _squared_error(row: PublishedRow, thousandths: tuple[int, ...]) -> float:
    predicted = row.predicted(_rates(dict(zip(_FITTED, thousandths, strict=True))))
    return math.log(predicted / row.value) ** 2
