"""A diary of JSON objects, one per line: it survives torn lines, and a full disk does not end the run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes

LOGGER = logging.getLogger("salamandra")


class Diary:
    """A file of JSON objects that one process appends to and any process may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one object; what cannot be written is warned about, because a diary must not end a run."""
        line = json.dumps(entry) + "\n"
        try:
            with self.path.open("ab+") as stream:
                # A line that a full disk or a kill cut short must not swallow this one too.
                if stream.tell() and not _ends_with_newline(stream.fileno(), stream.tell()):
                    line = "\n" + line
                stream.write(line.encode())
        except OSError as error:
            LOGGER.warning("%s cannot be written (%s): %s", self.path, error.strerror, line.strip())

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every object in order; lines that are not one, such as torn ones, are passed over."""
        for line in self._lines():
            if (entry := _parsed(line)) is not None:
                yield entry

    def forget_after(self, step: int) -> int:
        """Remove entries of steps after ``step``, and torn lines, and return how many there were.

        A run that died after its last checkpoint repeats steps; their first reports must go.

        Raises:
            DataError: the file cannot be replaced.
        """
        lines = self._lines()
        kept = [line for line in lines if (entry := _parsed(line)) and entry.get("step", step + 1) <= step]
        if len(kept) < len(lines):
            atomic_write_bytes(self.path, b"".join(kept))
        return len(lines) - len(kept)

    def _lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _ends_with_newline(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"
