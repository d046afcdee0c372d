"""A diary of JSON objects, one per line: it survives torn lines, and a full disk does not end the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.json_files import append_json_lines, read_json_lines

LOGGER = logging.getLogger("salamandra")


class Diary:
    """A file of JSON objects that one process appends to and any process may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Write objects; what cannot be written is warned about, because a diary must not end a run."""
        try:
            append_json_lines(self.path, entries)
        except OSError as error:
            LOGGER.warning(
                "%s cannot be written (%s): %s",
                self.path,
                error.strerror,
                "; ".join(json.dumps(entry) for entry in entries),
            )

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every object in order; lines that are not one, such as torn ones, are passed over."""
        return read_json_lines(self.path)

    def forget_after(self, step: int) -> int:
        """Remove entries of steps after ``step``, and torn lines, and return how many there were.

        A run that died after its last checkpoint repeats steps; their first reports must go.

        Raises:
            WriteError: the file cannot be replaced.
        """
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if _is_of_a_step_up_to(step, line)]
        if len(kept) < len(lines):
            atomic_write_bytes(self.path, b"".join(kept))
        return len(lines) - len(kept)


def _is_of_a_step_up_to(step: int, line: bytes) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False
