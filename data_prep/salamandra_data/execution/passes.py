"""Passes over work that is cut into units: by processes of this machine, or by the tasks of an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from megatron_salamandra.foundation.progress import ProgressLine
from salamandra_data.execution.executors import run_stages
from salamandra_data.execution.settings import ExecutorSettings
from salamandra_data.execution.stage import Outcome, Stage, share
from salamandra_data.execution.worker_pool import Counters, WorkerPool

Unit = TypeVar("Unit")

_UNITS_PER_PROCESS = 4  # so that processes which share few large units end at about the same time


class Pass(ABC, Generic[Unit]):
    """Units of work that may be done at once, in any order, by any process of any machine.

    What a pass leaves for the next one lies in a directory that all machines share. An instance is a dataclass, which
    reaches them as JSON, before the passes before it were done.
    """

    name: ClassVar[str]
    """Letters, digits and dashes; names a stage where tasks do the work."""

    title: ClassVar[str] = ""
    """Of the line of progress; without one there is no line."""

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """All units, once the pass before is complete."""

    @abstractmethod
    def do(self, counters: Counters, unit: Unit) -> None:
        """Do one unit, whole or not at all."""

    def left(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """Those of ``units`` that an earlier start has not done."""
        return units

    def size(self, unit: Unit) -> int:
        """How much :meth:`do` counts in the third counter, about."""
        return 1

    def most_tasks(self) -> int | None:
        """Into how many tasks it may be cut, if that is bounded. A pass with a conclusion is one task."""
        return None

    def conclude(self) -> None:
        """Called once when all units are done."""


class PassExecutor(Protocol):
    """Does passes one after the other."""

    @property
    def units_wanted(self) -> int:
        """Of a pass that can be cut as one likes: how many units keep every worker busy."""

    def run(self, passes: Sequence[Pass[Any]], work: Path) -> Outcome:
        """Do ``passes`` in their order; ``work`` is the directory that they share."""


@dataclass(frozen=True)
class Processes:
    """Does passes in ``workers`` processes of this machine; 1 does them in this process."""

    workers: int

    @property
    def units_wanted(self) -> int:
        """One process needs no more than one unit."""
        return 1 if self.workers == 1 else _UNITS_PER_PROCESS * self.workers

    def run(self, passes: Sequence[Pass[Any]], work: Path) -> Outcome:
        """Do them here and now.

        Raises:
            DataError: raised by a unit, or a worker died.
        """
        pool = WorkerPool(self.workers, passes)
        with pool.workers_kept():
            for number, step in enumerate(passes):
                units = step.left(step.units())
                pool.counters.reset()
                if units:
                    pool.start(len(units))  # now: showing progress takes a thread
                    size, counters = sum(map(step.size, units)), pool.counters
                    with (
                        ProgressLine(step.title, counters.units, size, counters.rates)
                        if step.title
                        else nullcontext()
                    ):
                        for _ in pool.run(_do_one, ((number, unit) for unit in units), len(units)):
                            pass
                step.conclude()
        return Outcome(done=True)


@dataclass(frozen=True)
class Tasks:
    """Does passes as stages of at most ``tasks`` tasks, each for its share of the units, where ``settings`` say."""

    settings: ExecutorSettings
    tasks: int

    @property
    def units_wanted(self) -> int:
        """One for each task."""
        return self.tasks

    def run(self, passes: Sequence[Pass[Any]], work: Path) -> Outcome:
        """Do them, or submit them.

        Raises:
            DataError: a task failed, or the executor cannot be used here.
        """
        stages: list[Stage] = []
        for step in passes:
            tasks = min(self.tasks, step.most_tasks() or self.tasks)
            stages.append(Stage(step.name, tasks, _ShareOfPass(step, tasks)))
        return run_stages(stages, self.settings, work)


@dataclass(frozen=True)
class _ShareOfPass:
    step: Pass[Any]
    tasks: int

    def __call__(self, task: int) -> None:
        pool = WorkerPool(1, self.step)
        for _ in pool.run(_do, self.step.left(share(self.step.units(), task, self.tasks))):
            pass
        if self.tasks == 1:
            self.step.conclude()


def _do_one(passes: Sequence[Pass[Any]], counters: Counters, unit: tuple[int, Any]) -> None:
    number, of_pass = unit
    passes[number].do(counters, of_pass)


def _do(step: Pass[Any], counters: Counters, unit: Any) -> None:
    step.do(counters, unit)
