"""Stages of numbered tasks: what they are, how work is dealt to tasks, which are complete, and what became of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Stage:
    """Tasks ``0 .. tasks - 1`` that may run at once, in any order, on any machine.

    Attributes:
        name: letters, digits and dashes; names its directory and, under SLURM, its job.
        tasks: how many.
        run: what a task does, given its number: an instance of a dataclass of a module, with ``__call__``. It reaches
            other machines as JSON (:mod:`task_file`), and other processes of this one pickled. Its result is not used.
    """

    name: str
    tasks: int
    run: Callable[[int], object]


def share(items: Sequence[Item], task: int, tasks: int) -> Sequence[Item]:
    """What task number ``task`` of ``tasks`` does of ``items``: every ``tasks``-th one."""
    return items[task::tasks]


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

    def message_file(self, task: int) -> Path:
        """Where a task that fails leaves its message."""
        return self.directory / "failures" / f"{task:05d}.txt"

    def failure(self, unfinished: list[int], error: Exception | None = None) -> str:
        """Why tasks are not complete: the message of the first that left one.

        Args:
            unfinished: of :meth:`unfinished`; not empty.
            error: what the executor raised.
        """
        count = f"{len(unfinished)} of {self.tasks} tasks are not done"
        for task in unfinished:
            if self.message_file(task).is_file():
                message = self.message_file(task).read_text().rstrip()
                return f"{message}\n  ({self.name}, task {task}; {count}; logs are below {self.directory})"
        return (
            f"{self.name}: {count}, the first is {unfinished[0]}{f': {error}' if error else ''}\n"
            "  it may have been killed, most often because memory or, under SLURM, time ran out; logs are below "
            f"{self.directory}"
        )


@dataclass(frozen=True)
class Outcome:
    """Whether the stages are done now, or which SLURM jobs will do them.

    Attributes:
        done: all stages are complete.
        jobs: numbers of the SLURM jobs, by stage.
        submitted: this call submitted them; else an earlier one did, and they are pending or running.
        failure: why tasks that an earlier call submitted, and this one again, were not completed.
    """

    done: bool
    jobs: dict[str, Sequence[str]] = field(default_factory=dict)
    submitted: bool = False
    failure: str | None = None
