"""A series of any length in bounded memory, which keeps what a drawing must show: every minimum and maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass

SPANS = 400
"""A curve has between so many and twice so many spans, once it has enough points."""


@dataclass(slots=True)
class Span:
    """Neighbouring points as one.

    Attributes:
        first_x, last_x: of its points.
        low, high: least and greatest value.
        total: sum of the values of its ``count`` points.
    """

    first_x: int
    last_x: int
    low: float
    high: float
    total: float
    count: int

    @property
    def mean(self) -> float:
        """Mean of its points."""
        return self.total / self.count

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return (self.first_x + self.last_x) / 2


class Curve:
    """Values over steps. Points come in order of their step; one of an earlier step takes back those from it on."""

    def __init__(self, spans: int = SPANS) -> None:
        self.spans: list[Span] = []
        self.first: tuple[int, float] | None = None
        """First point that is a number."""
        self.last: tuple[int, float] | None = None
        """Last point that is a number."""
        self.not_finite: list[int] = []
        """Steps whose value is no finite number, the first ones."""
        self.count = 0
        """Points that are numbers."""
        self._most = 2 * spans
        self._width = 1

    def add(self, x: int, y: float) -> None:
        """Add a point. What is no finite number is noted and not drawn."""
        if not math.isfinite(y):
            if len(self.not_finite) < self._most:
                self.not_finite.append(x)
            return
        if self.last is None or x <= self.last[0]:
            self._forget_from(x)
        self.last = (x, y)
        self.count += 1
        if self.spans:
            span = self.spans[-1]
            if span.count < self._width:
                span.last_x = x
                span.total += y
                span.count += 1
                if y < span.low:
                    span.low = y
                elif y > span.high:
                    span.high = y
                return
            if len(self.spans) >= self._most:
                self._halve()
        else:
            self.first = (x, y)
        self.spans.append(Span(x, x, y, y, y, 1))

    @property
    def low(self) -> float:
        """Least value; the curve must not be empty."""
        return min(span.low for span in self.spans)

    @property
    def high(self) -> float:
        """Greatest value; the curve must not be empty."""
        return max(span.high for span in self.spans)

    @property
    def mean(self) -> float:
        """Mean of all points; the curve must not be empty."""
        return sum(span.total for span in self.spans) / sum(span.count for span in self.spans)

    @property
    def median(self) -> float:
        """Median of the spans' means, which for few points is that of the points; the curve must not be empty."""
        means = sorted(span.mean for span in self.spans)
        return means[len(means) // 2]

    def smoothed(self) -> list[tuple[float, float]]:
        """Means over about a thirtieth of the curve around each span."""
        reach = max(1, len(self.spans) // 60)
        points = []
        for number, span in enumerate(self.spans):
            # Near the beginning as far to the right as to the left, or its steep slope would be bent.
            near = min(reach, number)
            around = self.spans[number - near : number + near + 1]
            points.append((span.middle, sum(one.total for one in around) / sum(one.count for one in around)))
        return points

    def since(self, x: int) -> Curve:
        """The part of the curve whose spans begin at ``x`` or later."""
        part = Curve()
        part.spans = [span for span in self.spans if span.first_x >= x]
        return part

    def summary(self) -> dict[str, float | int | None]:
        """First, last, extremes and mean; None of an empty curve."""
        if self.first is None or self.last is None or not self.spans:
            return {"first": None, "last": None, "low": None, "high": None, "mean": None, "points": 0}
        return {
            "first": self.first[1],
            "last": self.last[1],
            "low": self.low,
            "high": self.high,
            "mean": self.mean,
            "points": self.count,
        }

    def _forget_from(self, x: int) -> None:
        """Drop what is of ``x`` and later. A span that begins before stays whole, with extremes of dropped points."""
        while self.spans and self.spans[-1].first_x >= x:
            self.count -= self.spans.pop().count

    def _halve(self) -> None:
        pairs = zip(self.spans[::2], self.spans[1::2], strict=True)
        self.spans = [
            Span(
                left.first_x,
                right.last_x,
                min(left.low, right.low),
                max(left.high, right.high),
                left.total + right.total,
                left.count + right.count,
            )
            for left, right in pairs
        ]
        self._width *= 2
