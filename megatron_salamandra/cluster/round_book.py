"""``rounds.jsonl`` of a run directory: one line for each round, of all jobs of the run."""

from __future__ import annotations

import contextlib
from pathlib import Path

from megatron_salamandra.cluster.rounds import Round
from megatron_salamandra.foundation.json_files import append_json_lines, read_json_lines
from megatron_salamandra.run_directory import RunDirectory


class RoundBook:
    """Reads and appends rounds."""

    def __init__(self, run_dir: Path) -> None:
        self.path = RunDirectory(run_dir).rounds

    def read(self) -> list[Round]:
        """All rounds, oldest first; lines that are none, such as torn ones, are passed over."""
        found = []
        for entry in read_json_lines(self.path):
            with contextlib.suppress(ValueError):
                found.append(Round.from_dict(entry))
        return found

    def append(self, entry: Round) -> None:
        """Write one round; a disk that refuses is no reason to end a run."""
        with contextlib.suppress(OSError):
            append_json_lines(self.path, [entry.to_dict()])
