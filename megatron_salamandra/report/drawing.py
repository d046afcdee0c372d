"""Small drawings as SVG elements: a curve over steps, a sparkline, a bar of shares.

By hand, because a page of forty curves must stay small, and its colours must follow the reader's theme: they are
variables of the page's style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from megatron_salamandra.report.curve import Curve
from megatron_salamandra.report.texts import clean

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 20.0, 24.0
_LOGARITHMIC_FROM = 50.0
"""Greatest over least value from which an axis is logarithmic."""
_TICKS = 4
_SMOOTHED_FROM = 40
"""Spans from which a curve is smoothed."""


@dataclass(frozen=True)
class Stretch:
    """Steps that are shaded and named, such as a phase."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Mark:
    """A step at which something happened."""

    step: int
    text: str


@dataclass(frozen=True)
class _Axis:
    """Places of values between two ends of a drawing."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        low, high, value = (
            (math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low)))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def step_curve(
    curve: Curve,
    *,
    name: str,
    text: Callable[[float], str],
    last_step: int,
    stretches: Sequence[Stretch] = (),
    marks: Sequence[Mark] = (),
    wide: bool = False,
    from_zero: bool = False,
    smooth: bool = True,
) -> Markup:
    """A curve over the steps of the run: its extremes as a band, its smoothed mean as a line.

    Args:
        name: what is drawn, for readers that cannot see it.
        text: how a value is written.
        last_step: right end of the axis; further if the curve goes on.
        wide: over the whole page rather than half of it.
        smooth: False for what has no noise, such as the learning rate.
    """
    width, height = (1000.0, 300.0) if wide else (490.0, 190.0)
    spans = curve.spans
    last = max(last_step, spans[-1].last_x)
    across = _Axis(spans[0].first_x, last, _LEFT, width - _RIGHT)
    down = _value_axis(curve, height, from_zero)
    parts = [*_shades(stretches, across, height, width)]
    for value in _ticks(down):
        y = down.place(value)
        parts.append(f'<path class="grid" d="M{_LEFT:.0f} {y:.1f}H{width - _RIGHT:.0f}"/>')
        parts.append(f'<text x="{_LEFT - 6:.0f}" y="{y + 4:.1f}" class="end">{escape(text(value))}</text>')
    for value in _step_ticks(across):
        x = across.place(value)
        side = "end" if x > width - 60 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{height - 6:.0f}" class="{side}">{value:,.0f}</text>')
    if any(span.high > span.low for span in spans):
        parts.append(f'<path class="band" d="{_band(curve, across, down)}"/>')
    means = [(span.middle, span.mean) for span in spans]
    shown = means
    if smooth and len(spans) > _SMOOTHED_FROM:
        shown = curve.smoothed()
        parts.append(f'<path class="raw" d="{_path([(across.place(x), down.place(y)) for x, y in means])}"/>')
    points = [(across.place(x), down.place(y)) for x, y in shown]
    if len(points) == 1:
        parts.append(f'<circle class="dot" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>')
    parts.append(f'<path class="line" d="{_path(points)}"/>')
    for mark in (mark for mark in marks if mark.step >= across.low):
        x = across.place(mark.step)
        base = height - _BOTTOM
        triangle = f"M{x:.1f} {base - 8:.1f}l4.5 8h-9z"
        parts.append(f'<path class="mark" d="{triangle}"><title>{escape(mark.text)}</title></path>')
    return _svg("chart wide" if wide else "chart", width, height, name, parts)


def sparkline(curve: Curve, name: str, last_step: int) -> Markup:
    """A curve without axes, as high as a line of text, between its own extremes."""
    width, height = 160.0, 26.0
    spans = curve.spans
    across = _Axis(min(spans[0].first_x, 0), max(last_step, spans[-1].last_x), 3, width - 4)
    down = _Axis(curve.low, curve.high, height - 4, 4)
    points = [(across.place(span.middle), down.place(span.mean)) for span in spans]
    x, y = points[-1]
    parts = [
        f'<path class="line" d="{_path(points)}"/>',
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>',
    ]
    return _svg("spark", width, height, name, parts)


def share_bar(shares: Sequence[tuple[str, float]], name: str) -> Markup:
    """Shares of a whole side by side, those with room enough named.

    Args:
        shares: name and share of the whole, from 0 to 1.
    """
    width, height = 1000.0, 34.0
    parts, x = [], 0.0
    for number, (part, share) in enumerate(shares):
        size = share * width
        label = f"{part} {share:.0%}"
        title = f"<title>{escape(f'{part}: {share:.1%}')}</title>"
        parts.append(
            f'<rect class="share s{number % 8}" x="{x:.1f}" y="1" width="{max(size - 1.5, 0.5):.1f}" '
            f'height="{height - 2:.0f}">{title}</rect>'
        )
        if size > 8.0 * len(label) + 12:
            parts.append(f'<text class="on s{number % 8}" x="{x + 8:.1f}" y="22">{escape(label)}</text>')
        x += size
    return _svg("bar", width, height, name, parts)


def _svg(kind: str, width: float, height: float, name: str, parts: Sequence[str]) -> Markup:
    label = escape(clean(name, 200))
    head = f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">'
    return Markup(head + "".join(parts) + "</svg>")  # nosec B704 # the label is escaped, the parts are numbers


def _value_axis(curve: Curve, height: float, from_zero: bool) -> _Axis:
    low, high = curve.low, curve.high
    if low > 0 and high / low > _LOGARITHMIC_FROM:
        return _Axis(low, high, height - _BOTTOM, _TOP, logarithmic=True)
    if from_zero and low >= 0:
        low = 0.0
    if high <= low:
        room = abs(high) / 10 or 1.0
        low, high = low - room, high + room
    return _Axis(low, high, height - _BOTTOM, _TOP)


def _ticks(axis: _Axis) -> list[float]:
    """Round values between the ends."""
    if axis.logarithmic:
        first, last = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
        every = max(1, (last - first + 1) // _TICKS)
        tens = [10.0**power for power in range(first, last + 1, every)]
        return tens if len(tens) > 1 else [axis.low, math.sqrt(axis.low * axis.high), axis.high]
    rough = (axis.high - axis.low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (5, 2, 1, 0.5):
        size = factor * power
        first, last = math.ceil(axis.low / size - 1e-9), math.floor(axis.high / size + 1e-9)
        if last - first >= _TICKS - 2:
            break
    return [number * size for number in range(first, last + 1)]


def _step_ticks(axis: _Axis) -> list[float]:
    inside = [value for value in _ticks(_Axis(0, axis.high, 0, 1)) if value >= max(axis.low, 1)]
    return inside or [axis.high]


def _shades(stretches: Sequence[Stretch], across: _Axis, height: float, width: float) -> list[str]:
    parts = []
    for number, stretch in enumerate(stretches):
        x = across.place(max(stretch.first, across.low))
        size = across.place(stretch.last) - x
        if size <= 0:
            continue
        if number % 2:
            parts.append(
                f'<rect class="phase" x="{x:.1f}" y="{_TOP:.0f}" width="{max(size, 1):.1f}" '
                f'height="{height - _TOP - _BOTTOM:.0f}"/>'
            )
        if size > 8 * len(stretch.name):
            parts.append(
                f'<text class="name" x="{x + 4:.1f}" y="{_TOP - 6:.0f}">{escape(stretch.name)}</text>'
            )
    return parts


def _band(curve: Curve, across: _Axis, down: _Axis) -> str:
    above = [(across.place(span.middle), down.place(span.high)) for span in curve.spans]
    below = [(across.place(span.middle), down.place(span.low)) for span in reversed(curve.spans)]
    # A span without extent would have no area, and would not be seen.
    below = [(x, max(y, high + 0.8)) for (x, y), (_, high) in zip(below, reversed(above), strict=True)]
    return _path([*above, *below]) + "z"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
