"""``events.jsonl``: what happened to a run besides its steps."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any


class EventLog:
    """Appends one JSON object per event; a disabled log (ranks other than 0) ignores them."""

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self._path = path
        self._enabled = enabled

    def write(self, kind: str, **details: Any) -> None:
        """Append an event of ``kind`` (start, resume, signal, checkpoint, failure, end) with its time in UTC."""
        if not self._enabled:
            return
        moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": moment, "event": kind, **details}) + "\n")
