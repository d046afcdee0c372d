"""Tasks that tests of the executors run in other processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.errors import DataError


@dataclass(frozen=True)
class WriteSquare:
    """Task n writes n² into file n; refuses to do ``forbidden`` while the file ``obstacle`` exists."""

    directory: Path
    forbidden: int = -1

    def __call__(self, task: int) -> None:
        with open(self.directory / "calls", "a") as calls:
            calls.write(f"square {task}\n")
        if task == self.forbidden and (self.directory / "obstacle").exists():
            raise DataError(f"{self.directory}/obstacle: is in the way of task {task}")
        (self.directory / f"square-{task}").write_text(str(task * task))


@dataclass(frozen=True)
class WriteSum:
    """Adds up what the tasks of :class:`WriteSquare` wrote."""

    directory: Path

    def __call__(self, task: int) -> None:
        total = sum(int(path.read_text()) for path in self.directory.glob("square-*"))
        (self.directory / "sum").write_text(str(total))


@dataclass(frozen=True)
class DieSilently:
    """Ends its process as the system does when memory runs out."""

    def __call__(self, task: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
