"""A stage as datatrove runs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datatrove.pipeline.base import PipelineStep

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.errors import DataError
from salamandra_data.execution.stage import Stage, StageRecord


class StageStep(PipelineStep):
    """One task of a stage; a failed task's message is kept beside datatrove's logs, for whoever waits.

    Args:
        stage: whose task it is.
        record: of the stage.
        before: of the stage before it. A task refuses to start while that one is incomplete: it would take what is
            there for all there is, whoever started it too early.
    """

    type = "salamandra"

    def __init__(self, stage: Stage, record: StageRecord, before: StageRecord | None) -> None:
        self.name = stage.name
        super().__init__()
        self.stage, self.record, self.before = stage, record, before

    def run(self, data: Iterable[Any] | None, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Run task ``rank``; documents do not pass through datatrove's pipeline."""
        message_file = self.record.message_file(rank)
        message_file.unlink(missing_ok=True)
        try:
            self._check_turn()
            self.stage.run(rank)
        except Exception as error:
            atomic_write_bytes(message_file, f"{error}\n".encode(errors="backslashreplace"))
            raise
        return ()

    def _check_turn(self) -> None:
        if self.before is not None and (unfinished := self.before.unfinished()):
            raise DataError(f"it is not yet the turn of {self.stage.name}: {self.before.failure(unfinished)}")
