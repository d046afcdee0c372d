"""A diary of JSON objects, one per line, that survives torn lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.json_files import append_json_lines, parse_json_lines, read_json_lines

RECENT_BYTES = 1 << 16


class Diary:
    """A file of JSON objects that one process appends to and any process may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Write objects, all in one write.

        Raises:
            OSError: the system refused. A :class:`~megatron_salamandra.run_directory.write_guard.WriteGuard` keeps
                that from ending a run.
        """
        append_json_lines(self.path, entries)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every object in order; lines that are not one, such as torn ones, are passed over."""
        return read_json_lines(self.path)

    def recent_entries(self) -> list[dict[str, Any]]:
        """The last objects in order, as many as fit into :data:`RECENT_BYTES`; the last one, however long."""
        size, start, found = RECENT_BYTES, 1, list[dict[str, Any]]()
        while start and not found:
            try:
                with self.path.open("rb") as stream:
                    start = max(0, stream.seek(0, os.SEEK_END) - size)
                    stream.seek(start)
                    lines = stream.read().splitlines()
            except FileNotFoundError:
                return []
            # The first line may be the end of one, and still look like an object: {"a": {"b": 1}}.
            found = list(parse_json_lines(lines[1:] if start else lines))
            size *= 16
        return found

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

    def remove(self, choose: Callable[[Sequence[Mapping[str, Any]]], Set[int]]) -> None:
        """Remove entries, all in one step.

        Args:
            choose: gets the entries in order, empty ones in place of torn lines, and returns the positions that go.
        Raises:
            WriteError: the file cannot be replaced.
        """
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        gone = choose([next(parse_json_lines([line]), {}) for line in lines])
        if gone:
            kept = [line for number, line in enumerate(lines) if number not in gone]
            atomic_write_bytes(self.path, b"".join(kept))


def _is_of_a_step_up_to(step: int, line: bytes) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False
