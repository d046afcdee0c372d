"""``metrics.jsonl`` and ``validation.jsonl``: every number of the run, one JSON object per line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from megatron_salamandra.foundation.json_files import write_json
from megatron_salamandra.run_directory import MetricsLog, RunDirectory, ValidationLog, ValidationRecord
from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.report import LanguageScore


class RunFiles(Sink):
    """One object per step, and one per language and validation."""

    name = "metrics.jsonl"

    def __init__(self, directory: RunDirectory) -> None:
        self._metrics = MetricsLog(directory.metrics)
        self._validation = ValidationLog(directory.validation)

    def open(self, step: int) -> None:
        self._metrics.forget_after(step)
        self._validation.forget_after(step)

    def reopen(self, step: int) -> None:
        """Nothing is to be done: the next line closes one that was cut short, and the file may be long."""

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        self._metrics.append(step, nested(metrics))

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        self._validation.append(*(ValidationRecord(step=step, **asdict(score)) for score in scores))


class UnitsFile(Sink):
    """``units.json``: the unit of every metric that has one, by its name in ``metrics.jsonl``."""

    name = "units.json"

    def __init__(self, directory: RunDirectory) -> None:
        self._path = directory.units
        self._units: dict[str, str] = {}

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        units = {metric.name: metric.unit for metric in metrics if metric.unit}
        if not units.items() <= self._units.items():
            write_json(self._path, self._units | units)
            self._units |= units


def nested(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Values by name, ``seconds/data`` as ``{"seconds": {"data": ...}}``."""
    entry: dict[str, Any] = {}
    for metric in metrics:
        *above, last = metric.parts
        inside = entry
        for part in above:
            inside = inside.setdefault(part, {})
        inside[last] = metric.value
    return entry
