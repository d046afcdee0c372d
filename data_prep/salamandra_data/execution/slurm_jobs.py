"""Which SLURM jobs were submitted for a run, and which of them are still in the queue."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.errors import DataError

Jobs = Mapping[str, Sequence[str]]
"""Numbers of jobs by stage; a stage of many tasks is more than one job array."""


class JobRecord:
    """Kept in the directory of a run, so that the same command finds its jobs again."""

    def __init__(self, work: Path) -> None:
        self._file = work / "slurm-jobs.json"

    def read(self) -> Jobs:
        """The jobs of the last submission; empty if there was none."""
        return cast(Jobs, json.loads(self._file.read_text())) if self._file.is_file() else {}

    def write(self, jobs: Jobs) -> None:
        """Replace what was recorded."""
        atomic_write_bytes(self._file, json.dumps(jobs).encode())

    def in_queue(self) -> dict[str, Sequence[str]]:
        """Those of the recorded jobs that are pending or running.

        Raises:
            DataError: there are recorded jobs, and squeue does not say what became of them.
        """
        jobs = self.read()
        numbers = [number for stage in jobs.values() for number in stage]
        if not numbers:
            return {}
        there = self._pending_or_running(numbers)
        queued = {stage: [number for number in jobs[stage] if number in there] for stage in jobs}
        return {stage: left for stage, left in queued.items() if left}

    def _pending_or_running(self, numbers: Sequence[str]) -> set[str]:
        # %F is the number of a whole array, whichever of its tasks a line is about.
        command = ["squeue", "--noheader", "--format=%F", f"--jobs={','.join(numbers)}"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError as error:
            raise self._unknown("there is no `squeue` on this machine") from error
        except subprocess.CalledProcessError as error:
            if "Invalid job id" in error.stderr:  # SLURM has forgotten the only one asked for
                return set()
            raise self._unknown(f"squeue: {error.stderr.strip()}") from error
        return set(told.stdout.split())

    def _unknown(self, why: str) -> DataError:
        return DataError(
            f"{self._file}: this run was submitted to SLURM, and it is not known whether its jobs still run: {why}\n"
            "  run the command on a login node of that cluster, or remove the file if the jobs are gone"
        )
