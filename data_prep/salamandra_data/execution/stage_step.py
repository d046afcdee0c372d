"""A stage as datatrove runs it. The only module that needs datatrove to be imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from salamandra_data.atomic_write import atomic_write_bytes
from salamandra_data.execution.stage import Stage


class StageStep(PipelineStep):
    """One task of a stage; what a failed task said is kept beside datatrove's logs, for whoever waits.

    Args:
        stage: whose task it is.
        failures: directory for the words of failed tasks.
    """

    type = "salamandra"

    def __init__(self, stage: Stage, failures: Path) -> None:
        self.name = stage.name
        super().__init__()
        self.stage, self.failures = stage, failures

    def run(self, data: Iterable[Any] | None, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Run task ``rank``; documents do not pass through datatrove's pipeline."""
        words = self.failures / f"{rank:05d}.txt"
        words.unlink(missing_ok=True)
        try:
            self.stage.run(rank)
        except Exception as error:
            atomic_write_bytes(words, f"{error}\n".encode(errors="backslashreplace"))
            raise
        return ()
