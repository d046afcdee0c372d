"""``events.jsonl``: what happened to a run besides its steps."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.json_files import whole_in
from megatron_salamandra.run_directory.diary import Diary
from megatron_salamandra.run_directory.write_guard import WriteGuard

LOGGER = logging.getLogger("salamandra")
_OF_STEPS = ("checkpoint", "incident", "phase", "roll_back", "skip")
"""Kinds that belong to a step: whoever repeats it tells them again. All others are history of the run's starts."""


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        time: in UTC, ISO 8601 with milliseconds.
        kind: start, resume, change, checkpoint, stop, failure, end, ...
        details: what belongs to the kind, such as ``step``.
    """

    time: str
    kind: str
    details: Mapping[str, Any]


class EventLog:
    """Appends one JSON object per event: rank 0 all of them, the other ranks their failures only."""

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self._diary = Diary(path)
        self._guard = WriteGuard(str(path), LOGGER)
        self._enabled = enabled

    def write(self, kind: str, **details: Any) -> None:
        """Append an event of ``kind`` with its time; a full disk is warned about and does not raise."""
        if not self._enabled and kind != "failure":
            return
        moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._guard.attempt(lambda: self._diary.append({"time": moment, "event": kind, **details}))

    def forget_repeated(self, step: int) -> None:
        """Get ready to go on from the checkpoint of ``step``, or from nothing if it is 0.

        What belongs to the steps that are repeated now goes, because they tell it again.
        """
        if self._enabled:
            self._guard.attempt(lambda: self._diary.remove(lambda entries: _repeated(entries, step)))

    def tell_untold_checkpoint(self, step: int) -> None:
        """Tell of a checkpoint that is there, if the run that saved it was killed before it could."""
        told = (event for event in read_events(self._diary.path) if event.kind == "checkpoint")
        if self._enabled and all(event.details.get("step") != step for event in told):
            self.write("checkpoint", step=step)


def _repeated(entries: Sequence[Mapping[str, Any]], step: int) -> set[int]:
    """Positions of what belongs to steps after ``step``, but for what came before a roll back that it has behind it."""
    saved = max((n for n, entry in enumerate(entries) if _is_checkpoint(entry, step)), default=len(entries))
    rolled_back = max(
        (n for n, entry in enumerate(entries[:saved]) if step and entry.get("event") == "roll_back"),
        default=-1,
    )
    return {
        n
        for n, entry in enumerate(entries)
        if n > rolled_back
        and entry.get("event") in _OF_STEPS
        and (of_step := whole_in(entry.get("step"))) is not None
        and of_step > step
    }


def _is_checkpoint(entry: Mapping[str, Any], step: int) -> bool:
    return entry.get("event") == "checkpoint" and entry.get("step") == step


def read_events(path: Path) -> list[Event]:
    """All events of a run, oldest first; empty if there is no such file, and torn lines are passed over."""
    return [
        Event(
            str(entry.get("time", "")),
            str(entry["event"]),
            {key: value for key, value in entry.items() if key not in ("time", "event")},
        )
        for entry in Diary(path).entries()
        if "event" in entry
    ]
