"""When checkpoints are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from megatron_salamandra.checkpoint import CheckpointWriter, SaveOutcome
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import StepReport

if TYPE_CHECKING:
    from megatron_salamandra.training.trainer import Trainer


class Checkpointing(Callback):
    """Saves every so many steps, at the end, and whenever the run is stopped early."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self._policy = trainer.config.checkpoint
        self._saved_step: int | None = None
        self._writer = CheckpointWriter(
            trainer.checkpoints,
            self._policy,
            config_yaml=trainer.config.to_yaml(),
            tokenizer=trainer.plan.tokenizer.path,
        )

    def start(self) -> None:
        self._saved_step = self.trainer.step

    def after_step(self, report: StepReport) -> None:
        self._tell(self._writer.poll(wait=False))
        every = self._policy.every_steps
        if every and report.step % every == 0:
            self._save(report.step)

    def finish(self) -> None:
        stopped_early = self.trainer.stop_reason is not None
        if (stopped_early or self._policy.at_end) and self._saved_step != self.trainer.step:
            self._save(self.trainer.step)
        outcomes = self._writer.poll(wait=True)
        self._tell(outcomes)
        if stopped_early and any(outcome.error for outcome in outcomes):
            raise RuntimeError(
                f"the run was stopped at step {self.trainer.step}, but its checkpoint could not be written; "
                "the next start continues from the one before"
            )

    def _save(self, step: int) -> None:
        self._saved_step = step
        self._tell(self._writer.save(step, self.trainer.chunks, self.trainer.optimizer, self.trainer.state()))

    def _tell(self, outcomes: Sequence[SaveOutcome]) -> None:
        runtime = self.trainer.runtime
        for outcome in outcomes:
            if outcome.error is None:
                runtime.logger.info("saved %s in %.1f s", outcome.directory, outcome.seconds)
                runtime.events.write("checkpoint", step=outcome.step, seconds=round(outcome.seconds, 3))
            else:
                runtime.logger.error(
                    "checkpoint of step %d was NOT saved: %s; training goes on", outcome.step, outcome.error
                )
                runtime.events.write("failure", step=outcome.step, what="checkpoint", error=outcome.error)
