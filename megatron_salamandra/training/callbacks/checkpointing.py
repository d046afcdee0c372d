"""When checkpoints are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_salamandra.checkpoint import CheckpointWriter, SaveOutcome
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.run_directory import CheckpointError
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.logs import FILE_ONLY
from megatron_salamandra.training.report import StepReport


def is_due(policy: CheckpointSection, report: StepReport) -> bool:
    """Whether a step is saved as soon as it is done, by the policy or because it was asked for."""
    every = policy.every_steps
    return report.save_requested or (every is not None and report.step % every == 0)


class Checkpointing(Callback):
    """Saves every so many steps, at the end, and whenever the run is stopped early."""

    part = "checkpoint"

    def __init__(
        self,
        policy: CheckpointSection,
        writer: CheckpointWriter,
        *,
        save: Callable[[int], Sequence[SaveOutcome]],
        look_for_signals: Callable[[], bool],
        announce: Callable[[int, Path], None],
    ) -> None:
        """Take what the run's view does not have.

        Args:
            save: begins to save the state of a step with ``writer``; returns what ended by now.
            look_for_signals: has the run stop if a signal came meanwhile; collective.
            announce: tells all callbacks of a step's published checkpoint.
        """
        self._policy = policy
        self._writer = writer
        self._start_save = save
        self._look_for_signals = look_for_signals
        self._announce = announce
        self._requested_step: int | None = None
        self._failed_step: int | None = None
        self._ended: list[SaveOutcome] = []

    def start(self) -> None:
        self._requested_step = self.run.step

    def after_step(self, report: StepReport) -> None:
        self._tell(self._writer.poll(wait=False))
        if is_due(self._policy, report):
            self._save(report.step)
            # A signal that came meanwhile should not cost another step and another save.
            self._look_for_signals()
        self._record()

    def catch_up(self) -> None:
        """Give a save its name if its writers are done by now."""
        self._tell(self._writer.poll(wait=False))

    def finish(self) -> None:
        """Save the last step of this process.

        Raises:
            CheckpointError: it could not be written. Unlike a failed save on the way, this one
                cannot be made good by a later one, so the run must not look successful.
        """
        step = self.run.step
        if (self.run.stop_reason is not None or self._policy.at_end) and self._requested_step != step:
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

    def on_error(self, error: Exception, *, together: bool) -> None:
        """Complete a save that is still being written: it is from before the trouble."""
        if together:
            self._tell(self._writer.poll(wait=True))

    def _save(self, step: int) -> None:
        self._requested_step = step
        self._tell(self._start_save(step))

    def _record(self) -> None:
        """Record, with the next step, what has ended since the last one."""
        ended, self._ended = self._ended, []
        if ended:
            self.run.record(
                "checkpoint/stall_seconds", round(sum(save.stall_seconds for save in ended), 6), "s"
            )
            self.run.record("checkpoint/seconds", round(ended[-1].seconds, 6), "s")
            self.run.record("checkpoint/bytes", ended[-1].bytes, "bytes")

    def _tell(self, outcomes: Sequence[SaveOutcome]) -> None:
        for outcome in outcomes:
            if outcome.error is None:
                self._tell_saved(outcome)
            else:
                self._tell_failed(outcome, outcome.error)

    def _tell_saved(self, outcome: SaveOutcome) -> None:
        run = self.run
        run.logger.info(
            "saved %s in %.1f s; training stood still for %.1f s of them",
            outcome.directory,
            outcome.seconds,
            outcome.stall_seconds,
        )
        run.events.write(
            "checkpoint",
            step=outcome.step,
            seconds=round(outcome.seconds, 3),
            stall_seconds=round(outcome.stall_seconds, 3),
            bytes=outcome.bytes,
            **({"retries": outcome.retries} if outcome.retries else {}),
        )
        self._ended.append(outcome)
        self._announce(outcome.step, outcome.directory)

    def _tell_failed(self, outcome: SaveOutcome, error: str) -> None:
        run = self.run
        self._failed_step = outcome.step
        # All ranks know it, and one says it.
        run.logger.error(
            "the checkpoint of step %d was NOT saved: %s",
            outcome.step,
            error,
            extra=None if run.is_writer else FILE_ONLY,
        )
        if run.is_writer:
            run.events.write("failure", step=outcome.step, what="checkpoint", error=error)
