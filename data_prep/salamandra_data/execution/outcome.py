"""What became of stages that were given to an executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


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
