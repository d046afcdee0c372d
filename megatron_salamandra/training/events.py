"""``events.jsonl``: what happened to a run besides its steps."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("salamandra")


class EventLog:
    """Appends one JSON object per event: rank 0 all of them, the other ranks their failures only."""

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self._path = path
        self._enabled = enabled

    def write(self, kind: str, **details: Any) -> None:
        """Append an event of ``kind`` (start, resume, change, checkpoint, stop, failure, end) with its time in UTC."""
        if not self._enabled and kind != "failure":
            return
        moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": kind, **details}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            # A full disk must not end a run over its diary.
            LOGGER.warning("%s cannot be written (%s): %s", self._path, error.strerror, line.rstrip())
