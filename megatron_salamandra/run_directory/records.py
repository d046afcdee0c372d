"""``metrics.jsonl`` and ``validation.jsonl``: every number of a run, written and read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.json_files import whole_in
from megatron_salamandra.run_directory.diary import Diary


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: its number, from 1.
        values: everything that was measured, by name (``loss``, ``grad_norm``, ``lr``, ``tokens``, ...): numbers,
            and mappings of numbers such as ``seconds`` by part. Which names there are is up to those who measure.
    """

    step: int
    values: Mapping[str, Any]

    @property
    def loss(self) -> float:
        """Mean over the global batch's valid tokens, in nats."""
        return float(self.values["loss"])


@dataclass(frozen=True)
class ValidationRecord:
    """Validation of one language, or an average over languages (``macro``, ``micro``), at one step."""

    step: int
    """0 is before the first step."""
    language: str
    loss: float
    """Mean over predicted tokens, in nats."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Bits per UTF-8 byte of text; comparable between languages and tokenizers."""
    tokens: int
    """Predicted tokens."""


class MetricsLog:
    """``metrics.jsonl``: one object per step."""

    def __init__(self, path: Path) -> None:
        self._diary = Diary(path)

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one step; raises OSError where the system refuses."""
        self._diary.append({"step": step, **values})

    def records(self) -> Iterator[StepRecord]:
        """The steps in order of the file, one at a time: it may have millions. Torn lines are passed over."""
        return _steps(self._diary.entries())

    def read(self) -> list[StepRecord]:
        """All steps in order of the file; torn lines are passed over."""
        return list(self.records())

    def recent(self) -> list[StepRecord]:
        """The last steps in order of the file, as many as fit into 64 KiB; the file may have millions."""
        return list(_steps(iter(self._diary.recent_entries())))

    def forget_after(self, step: int) -> int:
        """Remove the steps after ``step`` and return how many lines went."""
        return self._diary.forget_after(step)


class ValidationLog:
    """``validation.jsonl``: one object per language and validation."""

    def __init__(self, path: Path) -> None:
        self._diary = Diary(path)

    def append(self, *records: ValidationRecord) -> None:
        """Write the scores of a validation at once; raises OSError where the system refuses."""
        self._diary.append(*(asdict(record) for record in records))

    def records(self) -> Iterator[ValidationRecord]:
        """The scores in order of the file, one at a time; of a step and language that come twice, both.

        Torn lines are passed over.
        """
        names = ValidationRecord.__dataclass_fields__
        for entry in self._diary.entries():
            if names.keys() <= entry.keys():
                yield ValidationRecord(**{name: entry[name] for name in names})

    def read(self) -> list[ValidationRecord]:
        """All scores in order of the file; of a step and language that come twice, both; torn lines are passed over."""
        return list(self.records())

    def forget_after(self, step: int) -> int:
        """Remove the scores of steps after ``step`` and return how many lines went."""
        return self._diary.forget_after(step)


def _steps(entries: Iterator[dict[str, Any]]) -> Iterator[StepRecord]:
    for entry in entries:
        step = whole_in(entry.pop("step", None))
        if step is not None:
            yield StepRecord(step, entry)
