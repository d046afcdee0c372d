"""Metrics by name: whoever measures something records it, and what is recorded reaches every sink."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Number = int | float
_NAME = re.compile(r"[A-Za-z0-9_.:+-]+(/[A-Za-z0-9_.:+-]+)*")
_TAKEN = ("step", "time")
"""Names that sinks give to what is no metric."""


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        parts: of its name; in ``metrics.jsonl`` every part but the last is a nested object.
        value: None where it cannot be known here, such as the peak of an unknown device.
        unit: for people; empty for plain numbers.
    """

    parts: tuple[str, ...]
    value: Number | None
    unit: str = ""

    @property
    def name(self) -> str:
        """The parts joined by ``/``."""
        return "/".join(self.parts)


class MetricBook:
    """What was recorded of the step that is being measured."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def record(self, name: str | Sequence[str], value: Number | None, unit: str = "") -> None:
        """Record a number of this step.

        Args:
            name: parts joined by ``/``; or the parts themselves, which may then be any text, such as a source's name.
        Raises:
            ValueError: the name is malformed, or is taken in this step: by another record of it, or by metrics below
                it or above it.
            TypeError: the value is no number.
        """
        if isinstance(name, str) and not _NAME.fullmatch(name):
            raise ValueError(
                f"metric {name!r}: a name is letters, digits and _ . : + -, and / between its parts"
            )
        parts = tuple(name.split("/")) if isinstance(name, str) else tuple(name)
        metric = Metric(parts, value, unit)
        if parts[0] in _TAKEN:
            raise ValueError(f"metric {metric.name}: the name {parts[0]} is taken; take another")
        if value is not None and not isinstance(value, int | float):
            raise TypeError(
                f"metric {metric.name} = {value!r} is a {type(value).__name__}; record a number (tensor.item())"
            )
        for other in self._metrics:
            if other[: len(parts)] == parts or parts[: len(other)] == other:
                raise ValueError(
                    f"metric {metric.name}: {'/'.join(other)} was recorded already in this step; take another name"
                )
        self._metrics[parts] = metric

    def take(self) -> list[Metric]:
        """Everything recorded since the last call, in order, and begin the next step."""
        taken = list(self._metrics.values())
        self._metrics.clear()
        return taken
