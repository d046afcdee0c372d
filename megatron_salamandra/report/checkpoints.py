"""Every save that a run has completed, and what is still there of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_salamandra.foundation.json_files import number_in, whole_in
from megatron_salamandra.run_directory import (
    CheckpointError,
    Event,
    RunDirectory,
    complete_checkpoints,
    step_of,
    verify_checkpoint,
)

_LOOKED_INTO = 20
"""Checkpoints whose files are looked at, the newest ones: a checkpoint may have thousands."""


@dataclass(frozen=True)
class SavedStep:
    """One save.

    Attributes:
        time: of its end; empty if no event tells it.
        seconds: that it took; None if no event tells it.
        size_bytes: of its files; None if it was not looked into or is gone.
        state: ``sizes agree`` with its manifest, ``there``, ``gone``, or what is wrong.
    """

    step: int
    time: str
    seconds: float | None
    size_bytes: int | None
    state: str


def saved_steps(directory: RunDirectory, events: Sequence[Event]) -> list[SavedStep]:
    """All saves, by step; of a step that was saved twice, the last time."""
    told: dict[int, Event] = {}
    for event in events:
        step = whole_in(event.details.get("step"))
        if event.kind == "checkpoint" and step is not None:
            told[step] = event
    there = {step_of(path): path for path in complete_checkpoints(directory.checkpoints)}
    looked_into = sorted(there)[-_LOOKED_INTO:]
    found = []
    for step in sorted(told.keys() | there.keys()):
        size, state = None, "there" if step in there else "gone"
        if step in looked_into:
            try:
                size, state = verify_checkpoint(there[step], checksums=False), "sizes agree"
            except (CheckpointError, OSError) as error:
                state = str(error)
        found.append(
            SavedStep(
                step,
                told[step].time if step in told else "",
                number_in(told[step].details.get("seconds")) if step in told else None,
                size,
                state,
            )
        )
    return found
