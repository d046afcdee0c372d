"""What a run's directory holds about a stage: which tasks are complete, and what failed ones said."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.execution.stage import Stage


@dataclass(frozen=True)
class StageRecord:
    """Read by whoever runs or follows a stage, on any machine.

    Attributes:
        name: of the stage.
        tasks: how many it has.
        directory: of the stage; datatrove marks completed tasks and writes logs there.
    """

    name: str
    tasks: int
    directory: Path

    @classmethod
    def of(cls, stage: Stage, work: Path) -> StageRecord:
        """The record of a stage in the directory of a run."""
        return cls(stage.name, stage.tasks, work / stage.name)

    def unfinished(self) -> list[int]:
        """Numbers of the tasks that are not complete."""
        try:
            complete = set(os.listdir(self.directory / "completions"))
        except FileNotFoundError:
            complete = set()
        return [task for task in range(self.tasks) if f"{task:05d}" not in complete]

    def words(self, task: int) -> Path:
        """Where a task that fails leaves its reason."""
        return self.directory / "failures" / f"{task:05d}.txt"

    def failure(self, unfinished: list[int], error: Exception | None = None) -> str:
        """Why tasks are not complete, in the words of the first that left some.

        Args:
            unfinished: of :meth:`unfinished`; not empty.
            error: what the executor raised.
        """
        count = f"{len(unfinished)} of {self.tasks} tasks are not done"
        for task in unfinished:
            if self.words(task).is_file():
                said = self.words(task).read_text().rstrip()
                return f"{said}\n  ({self.name}, task {task}; {count}; logs are below {self.directory})"
        return (
            f"{self.name}: {count}, the first is {unfinished[0]}{f': {error}' if error else ''}\n"
            "  it may have been killed, most often for want of memory or, under SLURM, of time; logs are below "
            f"{self.directory}"
        )
