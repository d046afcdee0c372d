"""The dress rehearsal of a job: the trainer's own code of every distinct rank, without a GPU and without the others.

Public names: :func:`rehearse`, what it finds (:class:`Rehearsal`, :class:`RankRehearsal`, :class:`MemoryPeak`,
:class:`CollectiveUse`, :class:`MessageUse`), :func:`render_rehearsal` and :class:`RehearsalError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_salamandra.rehearsal.errors import RehearsalError
from megatron_salamandra.rehearsal.results import (
    Category,
    CollectiveUse,
    MemoryPeak,
    MessageUse,
    RankRehearsal,
    Rehearsal,
)
from megatron_salamandra.rehearsal.table import render_rehearsal

if TYPE_CHECKING:
    from megatron_salamandra.rehearsal.job import rehearse

__all__ = [
    "Category",
    "CollectiveUse",
    "MemoryPeak",
    "MessageUse",
    "RankRehearsal",
    "Rehearsal",
    "RehearsalError",
    "rehearse",
    "render_rehearsal",
]


def __getattr__(name: str) -> Any:
    if name == "rehearse":  # imports torch
        from megatron_salamandra.rehearsal.job import rehearse

        return rehearse
    raise AttributeError(name)
