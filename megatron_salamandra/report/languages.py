"""Bits per byte of each language over the run, from ``validation.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from megatron_salamandra.foundation.json_files import number_in, whole_in
from megatron_salamandra.report.curve import Curve
from megatron_salamandra.run_directory import ValidationRecord

AVERAGES = ("macro", "micro")
_SPANS = 60


@dataclass(frozen=True)
class LanguageCurve:
    """One language, or an average over languages.

    Attributes:
        bits_per_byte: over steps.
    """

    name: str
    bits_per_byte: Curve

    @property
    def first(self) -> tuple[int, float]:
        """Step and bits per byte of the first validation."""
        assert self.bits_per_byte.first is not None
        return self.bits_per_byte.first

    @property
    def last(self) -> tuple[int, float]:
        """Step and bits per byte of the last validation."""
        assert self.bits_per_byte.last is not None
        return self.bits_per_byte.last

    @property
    def gain(self) -> float:
        """Share of the first bits per byte that is gone."""
        return 1.0 - self.last[1] / self.first[1] if self.first[1] else 0.0


def walk_validations(records: Iterable[ValidationRecord]) -> tuple[list[LanguageCurve], list[LanguageCurve]]:
    """Languages, the most improved first, and averages."""
    curves: dict[str, Curve] = {}
    for record in records:
        bits, step = number_in(record.bits_per_byte), whole_in(record.step)
        if bits is not None and step is not None:
            curves.setdefault(str(record.language), Curve(_SPANS)).add(step, bits)
    found = [LanguageCurve(name, curve) for name, curve in curves.items() if curve.spans]
    languages = [one for one in found if one.name not in AVERAGES]
    languages.sort(key=lambda one: (-one.gain, one.name))
    return languages, [one for one in found if one.name in AVERAGES]
