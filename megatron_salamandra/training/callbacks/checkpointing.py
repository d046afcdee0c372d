"""When checkpoints are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from megatron_salamandra.checkpoint import CheckpointWriter, SaveOutcome
from megatron_salamandra.run_directory import CheckpointError
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import StepReport

if TYPE_CHECKING:
    from megatron_salamandra.training.trainer import Trainer


class Checkpointing(Callback):
    """Saves every so many steps, at the end, and whenever the run is stopped early."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self._policy = trainer.config.checkpoint
        self._requested_step: int | None = None
        self._failed_step: int | None = None
        self._writer = CheckpointWriter(
            trainer.checkpoints,
            self._policy,
            config_yaml=trainer.config.to_yaml(),
            tokenizer=trainer.plan.tokenizer.path,
            owner=trainer.runtime.owner,
        )

    def start(self) -> None:
        self._requested_step = self.trainer.step

    def after_step(self, report: StepReport) -> None:
        self._tell(self._writer.poll(wait=False))
        every = self._policy.every_steps
        if every and report.step % every == 0:
            self._save(report.step)

    def finish(self) -> None:
        """Save the last step of this process.

        Raises:
            CheckpointError: it could not be written. Unlike a failed save on the way, this one
                cannot be made good by a later one, so the run must not look successful.
        """
        step = self.trainer.step
        if (self.trainer.stop_reason is not None or self._policy.at_end) and self._requested_step != step:
            self._save(step)
        self._tell(self._writer.poll(wait=True))
        if self._requested_step == step and self._failed_step == step:
            raise CheckpointError(
                f"the checkpoint of step {step}, where this process ends, could not be written\n"
                "  free space and start the run again: it continues from the last complete checkpoint"
            )

    def before_roll_back(self) -> None:
        """Complete a save that is still being written: it is the newest checkpoint then."""
        self._tell(self._writer.poll(wait=True))

    def after_roll_back(self, step: int) -> None:
        self._requested_step = step

    def abandon(self) -> None:
        """Complete a save that is still being written: it is from before the trouble."""
        self._tell(self._writer.poll(wait=True))

    def _save(self, step: int) -> None:
        self._requested_step = step
        self._tell(self._writer.save(step, self.trainer.chunks, self.trainer.optimizer, self.trainer.state()))

    def _tell(self, outcomes: Sequence[SaveOutcome]) -> None:
        runtime = self.trainer.runtime
        for outcome in outcomes:
            if outcome.error is None:
                runtime.logger.info("saved %s in %.1f s", outcome.directory, outcome.seconds)
                runtime.events.write("checkpoint", step=outcome.step, seconds=round(outcome.seconds, 3))
            else:
                self._failed_step = outcome.step
                runtime.logger.error(
                    "the checkpoint of step %d was NOT saved: %s", outcome.step, outcome.error
                )
                runtime.events.write("failure", step=outcome.step, what="checkpoint", error=outcome.error)
