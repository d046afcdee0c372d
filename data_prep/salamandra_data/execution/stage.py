"""What a stage is, and how its work is dealt to its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Stage:
    """Tasks ``0 .. tasks - 1`` that may run at once, in any order, on any machine.

    Attributes:
        name: letters, digits and dashes; names its directory and, under SLURM, its job.
        tasks: how many.
        run: what a task does, given its number. It is pickled: a function of a module, or an instance of a class of
            a module (a frozen dataclass with ``__call__`` holds settings well). Its result is not used.
    """

    name: str
    tasks: int
    run: Callable[[int], object]


def share(items: Sequence[Item], task: int, tasks: int) -> Sequence[Item]:
    """What task number ``task`` of ``tasks`` does of ``items``: every ``tasks``-th one."""
    return items[task::tasks]
