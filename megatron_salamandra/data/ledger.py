"""What a run has seen of each source, and where a run that goes on from it starts.

The first follows from the number of consumed samples, so nothing is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLedger:
    """One source's account after some number of samples of a run.

    Attributes:
        source: its name.
        language: of the source.
        samples: drawn by this phase.
        tokens: predicted in them: samples times the sequence length.
        next_ordinal: ordinal of the sample that comes next, over all phases; a later phase starts there.
        windows: of its text.
        epochs: passes over the source's windows over all phases, ``next_ordinal / windows``.
    """

    source: str
    language: str
    samples: int
    tokens: int
    next_ordinal: int
    windows: int

    @property
    def epochs(self) -> float:
        return self.next_ordinal / self.windows


@dataclass(frozen=True)
class LanguageLedger:
    """The sources of one language together.

    Attributes:
        tokens: predicted in samples of the language.
        epochs: passes over the windows of all its sources.
    """

    language: str
    tokens: int
    epochs: float


def by_language(ledger: Iterable[SourceLedger]) -> list[LanguageLedger]:
    """Add up the sources of each language, in order of its first source."""
    grouped: dict[str, list[SourceLedger]] = {}
    for entry in ledger:
        grouped.setdefault(entry.language, []).append(entry)
    return [
        LanguageLedger(
            language,
            sum(entry.tokens for entry in entries),
            sum(entry.next_ordinal for entry in entries) / sum(entry.windows for entry in entries),
        )
        for language, entries in grouped.items()
    ]


def final_ordinals(
    ledger: Iterable[SourceLedger], start_ordinals: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return where each source stands at the end of a phase: the ordinal of the sample that comes next.

    Args:
        ledger: at the end of the phase.
        start_ordinals: that the phase itself was given; keeps the place in sources it did not draw from.
    """
    return {**(start_ordinals or {}), **{entry.source: entry.next_ordinal for entry in ledger}}


def carried_ordinals(reached: Mapping[str, int], new_text: Iterable[str]) -> dict[str, int]:
    """Return the ``start_ordinals`` of a phase that goes on where another one stopped.

    An ordinal counts windows. Where a source has grown or shrunk in between, its ordinal stays what it was, and
    so its place in the walk is another share of the new text.

    Args:
        reached: :func:`final_ordinals` of the phase before.
        new_text: names of sources whose text is not that of the phase before; they start at 0.
    """
    return {**reached, **dict.fromkeys(new_text, 0)}
