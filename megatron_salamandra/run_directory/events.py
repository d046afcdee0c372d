"""``events.jsonl``: what happened to a run besides its steps."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.run_directory.diary import Diary
from megatron_salamandra.run_directory.write_guard import WriteGuard

LOGGER = logging.getLogger("salamandra")


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
