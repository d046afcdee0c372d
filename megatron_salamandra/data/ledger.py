"""What a run has seen of each source: follows from the number of consumed samples, nothing is counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLedger:
    """One source's account after some number of samples of a run.

    Attributes:
        language: of the source.
        samples: drawn by this phase.
        tokens: predicted in them: samples times the sequence length.
        next_ordinal: ordinal of the sample that comes next, over all phases; a later phase starts there.
        epochs: passes over the source's windows over all phases, ``next_ordinal / windows``.
    """

    language: str
    samples: int
    tokens: int
    next_ordinal: int
    epochs: float


def final_ordinals(
    ledger: Iterable[SourceLedger], start_ordinals: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return the ``start_ordinals`` of a phase that goes on where this ledger's phase stopped.

    Args:
        ledger: at the end of the phase.
        start_ordinals: that the phase itself was given; keeps the place in languages it did not draw from.
    """
    return {**(start_ordinals or {}), **{entry.language: entry.next_ordinal for entry in ledger}}
