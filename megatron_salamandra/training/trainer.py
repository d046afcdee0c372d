"""The trainer: builds everything from a configuration, resumes, and yields optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.checkpoint import CheckpointWriter, SaveOutcome, load_checkpoint
from megatron_salamandra.cluster import leave_word
from megatron_salamandra.config import RunConfig
from megatron_salamandra.data import DocumentRules, RunStream, SourceLedger, validation_sets
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.model import unwrap
from megatron_salamandra.optim import check_optimizer
from megatron_salamandra.run_directory import CheckpointState, step_of
from megatron_salamandra.timeline import Timeline
from megatron_salamandra.training.assembly import build_model_and_optimizer
from megatron_salamandra.training.callbacks import CallbackList
from megatron_salamandra.training.callbacks.checkpointing import Checkpointing
from megatron_salamandra.training.callbacks.configured import configured_callbacks
from megatron_salamandra.training.callbacks.stragglers import Stragglers
from megatron_salamandra.training.callbacks.twins import compare_twins
from megatron_salamandra.training.callbacks.validation import HeldOut, Validation
from megatron_salamandra.training.decision import Action, Decision
from megatron_salamandra.training.device_feed import DeviceFeed
from megatron_salamandra.training.environment import package_versions
from megatron_salamandra.training.errors import TrainingError
from megatron_salamandra.training.metrics.book import MetricBook
from megatron_salamandra.training.metrics.step_metrics import StepMetrics
from megatron_salamandra.training.parts import TrainerParts
from megatron_salamandra.training.recipe_changes import check_same_optimizer
from megatron_salamandra.training.report import StepReport
from megatron_salamandra.training.resuming import (
    check_same_stream,
    initialize_weights,
    local_copies,
    newest_checkpoint,
    recorded,
    tell_changes,
    timeline_after,
)
from megatron_salamandra.training.run_data import OpenedData, open_data
from megatron_salamandra.training.run_view import Progress, Run
from megatron_salamandra.training.runtime import Runtime
from megatron_salamandra.training.standard_callbacks import in_order
from megatron_salamandra.training.start_checks import (
    STOP_AFTER_STEPS,
    last_step_of_this_start,
    nothing_to_do,
    tell_lost_steps,
)
from megatron_salamandra.training.train_step import TrainStep


class Trainer:
    """One run on one rank. Build it, resume it, then walk :meth:`steps`."""

    def __init__(
        self,
        runtime: Runtime,
        data: OpenedData,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
        parts: TrainerParts | None = None,
    ) -> None:
        """Use :meth:`build`; the parts are arguments so that tests can replace them."""
        parts = parts or TrainerParts()
        self.runtime = runtime
        self.config: RunConfig = runtime.config
        self.data: RunStream = data.stream
        self._freeze_data = data.freeze
        self.chunks = chunks
        self.optimizer = optimizer
        self.progress = Progress(self.config.timeline)
        self._metrics = MetricBook()
        self.callbacks = self._make_callbacks(parts)
        self._open_loader = parts.open_loader
        self._phase: int | None = None
        self._held_out_text: dict[int, HeldOut] = {}
        self._rolled_back: set[tuple[int, Timeline]] = set()
        self._has_work_left = False
        self._stopped_by_signal = False
        self._train_step = TrainStep(
            runtime,
            chunks,
            optimizer,
            forward_backward=parts.forward_backward,
            callbacks=self.callbacks,
            clock=parts.clock,
        )

    def _make_callbacks(self, parts: TrainerParts) -> CallbackList:
        runtime, config = self.runtime, self.config
        run = Run(
            config,
            runtime.directory,
            rank=runtime.grid.rank,
            world_size=runtime.grid.world_size,
            logger=runtime.logger,
            events=runtime.events,
            metrics=self._metrics,
            progress=self.progress,
            ledger=self.ledger,
        )
        writer = CheckpointWriter(
            runtime.directory.checkpoints,
            config.checkpoint,
            config_yaml=config.to_yaml(),
            tokenizer=self.data.phases[0].plan.tokenizer.path,
            owner=runtime.owner,
            local=local_copies(runtime),
        )

        def save(step: int) -> list[SaveOutcome]:
            self.callbacks.before_save(step)
            return writer.save(step, self.chunks, self.optimizer, self.state())

        callbacks = in_order(
            run,
            self._metrics,
            measure=StepMetrics(
                runtime.platform.peak_flops(config.precision), lambda: self.callbacks.take_seconds()
            ),
            others=[Stragglers(), *configured_callbacks(config), *parts.callbacks],
            twins=lambda guard: compare_twins(guard, runtime, self.chunks, self.optimizer),
            more_sinks=parts.sinks,
            validation=Validation(
                runtime,
                self.chunks,
                self._held_out,
                documents=self.document_rules,
                look_for_signals=self._look_for_signals,
                catch_up=lambda: self.callbacks.catch_up(),
                announce=lambda step, scores: self.callbacks.after_validation(step, scores),
            ),
            checkpointing=Checkpointing(
                config.checkpoint,
                writer,
                save=save,
                look_for_signals=self._look_for_signals,
                announce=lambda step, directory: self.callbacks.after_checkpoint(step, directory),
            ),
        )
        return CallbackList(callbacks, run, parts.clock)

    @classmethod
    def build(cls, runtime: Runtime, parts: TrainerParts | None = None) -> Trainer:
        """Check the data, then build model and optimizer (the expensive part).

        Args:
            parts: replacements for parts of the step; the real ones where not given.
        Raises:
            ConfigError, DataError: blend, earlier phase and configuration do not fit each other.
        """
        config = runtime.config
        check_optimizer(config)
        data = open_data(config, runtime.directory, runtime.grid, runtime.logger)
        PROGRESS.enter(Part.START, "building the model")
        chunks, optimizer = build_model_and_optimizer(config, runtime.grid, runtime.platform)
        return cls(runtime, data, chunks, optimizer, parts)

    @property
    def document_rules(self) -> DocumentRules | None:
        """How the ends of documents inside a window count; None where they do not."""
        data = self.config.data
        if not (data.document_masking or data.reset_positions):
            return None
        return DocumentRules(
            self.data.phases[0].plan.tokenizer.eod_id, data.document_masking, data.reset_positions
        )

    @property
    def step(self) -> int:
        """Optimizer steps done since the beginning of the run."""
        return self.progress.step

    @property
    def timeline(self) -> Timeline:
        """Which samples each step of the run takes."""
        return self.progress.timeline

    @property
    def consumed_samples(self) -> int:
        """Samples trained on since the beginning of the run."""
        return self.timeline.samples(self.step)

    def ledger(self, step: int) -> list[SourceLedger]:
        """What the run has drawn from each source after ``step`` steps."""
        return self.data.ledger(step)

    @property
    def exit_code(self) -> int:
        """75 if the run was stopped before its last step, or before what comes after that; else 0."""
        unfinished = self.step < self.config.total_steps or self._has_work_left
        return EXIT_STOPPED if unfinished else EXIT_DONE

    def resume_if_possible(self) -> str | None:
        """Load the newest intact checkpoint of the run directory, if there is one; collective.

        Returns:
            Why there is nothing to do, if there is not; then nothing was loaded.
        Raises:
            CheckpointError: there are only damaged ones, or it is of another model, or of another stream of data.
        """
        directory = newest_checkpoint(self.runtime)
        found = step_of(directory) if directory else 0
        is_writer = self.runtime.grid.rank == 0
        reached = tell_lost_steps(self.runtime.directory, found, self.runtime.logger) if is_writer else 0
        if directory is None:
            initialize_weights(self.runtime, self.chunks, self.optimizer)
            self.runtime.events.forget_repeated(0)
            self.runtime.events.write(
                "start",
                reached=reached,
                steps=self.config.total_steps,
                layout=self.runtime.grid.describe(),
            )
            return None
        self.progress.step = step_of(directory)
        idle = nothing_to_do(self.step, self.config)
        if idle is not None and not self.callbacks.have_work_left():
            self.runtime.events.tell_untold_checkpoint(self.step)
            return idle
        check_same_optimizer(directory, self.config)
        state = load_checkpoint(directory, self.config, self.chunks, self.optimizer, checked=True)
        self.progress.step = state.step
        self._set_timeline(timeline_after(directory, state, self.config, self.timeline))
        PROGRESS.enter(Part.START, f"resuming from {directory.name}", step=self.step)
        check_same_stream(directory, state, self.data)
        self._enter_phase(self.timeline.phase(max(self.step, 1)))
        self.progress.skipped_updates = state.skipped_updates
        unknown = self.callbacks.load_state(state.callbacks)
        self.runtime.logger.info("resumed from %s at step %d", directory, self.step)
        self.runtime.events.forget_repeated(self.step)
        self.runtime.events.tell_untold_checkpoint(self.step)
        tell_changes(self.runtime, directory, state, unknown)
        self.runtime.events.write(
            "resume",
            step=self.step,
            reached=reached,
            steps=self.config.total_steps,
            checkpoint=directory.name,
            layout=self.runtime.grid.describe(),
        )
        return None

    def state(self) -> CheckpointState:
        """What a checkpoint records besides tensors (``state.json``)."""
        trained = self.timeline.until(self.step)
        return CheckpointState.record(
            step=self.step,
            total_steps=self.config.total_steps,
            consumed_samples=self.consumed_samples,
            consumed_tokens=self.timeline.tokens(self.step),
            position=trained.to_dict() if trained else None,
            skipped_updates=self.progress.skipped_updates,
            callbacks=self.callbacks.state(),
            stream=self.data.at(self.step).stream.fingerprint(),
            phase_streams=self.data.fingerprints(self.step),
            layout=self.runtime.grid.describe(),
            versions=package_versions(),
            ledger=[recorded(entry) for entry in self.ledger(self.step)],
        )

    def steps(self) -> Iterator[StepReport]:
        """Train until the last step, a stop request, or a signal; yields after each optimizer step."""
        stop_after = last_step_of_this_start(self.config)
        progress = self.progress
        while progress.step < stop_after and progress.stop_reason is None:
            phase = self.timeline.phase(progress.step + 1)
            self._enter_phase(phase)
            with self._open_loader(
                self.data.phases[phase].stream,
                timeline=self.timeline,
                micro_batch_size=self.config.in_phase(phase).training.micro_batch_size,
                data_parallel_rank=self.runtime.grid.data_rank,
                data_parallel_size=self.runtime.grid.data_size,
                first_step=self.step,
                prefetch_steps=self.config.data.prefetch_steps,
                documents=self.document_rules,
            ) as loader:
                end = min(stop_after, self.timeline.last_step(phase))
                feed = DeviceFeed(loader, self.runtime.platform)
                yield from self._steps_without_roll_back(feed, end, stop_after)

    def _enter_phase(self, number: int) -> None:
        """Have the model and the run directory be in a phase; its first step is logged."""
        if number == self._phase:
            return
        self._phase = number
        model = self.config.in_phase(number).model
        for chunk in self.chunks:
            unwrap(chunk).use_rotary_embedding(model)
        phase = self.data.phases[number]
        if self.step == self.timeline.first_step(number) and number:
            if self.runtime.grid.rank == 0:
                phase.plan.freeze(self.runtime.directory.phase_blend_lock(number, phase.name))
            self.runtime.logger.info("the phase %s begins at step %d", phase.name, self.step + 1)
            self.runtime.events.write("phase", step=self.step + 1, name=phase.name)

    def _set_timeline(self, timeline: Timeline) -> None:
        self.progress.timeline = timeline
        self.data = self.data.on(timeline)

    def _held_out(self) -> HeldOut:
        """Held-out text of the phase that the last step was in."""
        number = self.timeline.phase(max(self.step, 1))
        if number not in self._held_out_text:
            config, phase = self.config.in_phase(number), self.data.phases[number]
            sets = validation_sets(
                phase.plan,
                config.data.sequence_length,
                config.validation.samples_per_language,
                self.data.checks,
            )
            self._held_out_text = {number: HeldOut(sets, config.training.micro_batch_size)}
        return self._held_out_text[number]

    def _steps_without_roll_back(self, feed: DeviceFeed, end: int, stop_after: int) -> Iterator[StepReport]:
        """Steps up to ``end`` in the feed's order, unless the run stops or is somewhere else after a roll-back."""
        progress = self.progress
        while progress.step < end and progress.stop_reason is None:
            step = progress.step + 1
            outcome = self._train_step.run(feed, step, progress)
            if outcome.signalled:
                self._stop_by_signal()
            elif outcome.stop_requested:
                progress.stop_reason = progress.stop_request or "asked for on another rank"
            if outcome.decision.action is Action.ROLL_BACK:
                self._roll_back(step, outcome.decision)
                return
            if outcome.decision.action is Action.STOP:
                progress.stop_reason = progress.stop_reason or outcome.decision.reason
                return
            assert outcome.report is not None
            progress.step = step
            if not outcome.report.applied:
                progress.skipped_updates += 1
                self.runtime.logger.warning("step %d is skipped: %s", step, outcome.decision.reason)
                self.runtime.events.write("skip", step=step, reason=outcome.decision.reason)
            if progress.step == stop_after < self.config.total_steps and progress.stop_reason is None:
                progress.stop_reason = STOP_AFTER_STEPS
            yield outcome.report
            if (decision := progress.roll_back) is not None:
                progress.roll_back = None
                if progress.stop_reason == STOP_AFTER_STEPS:  # the last step comes again
                    progress.stop_reason = None
                self._roll_back(step, decision)
                return

    def _roll_back(self, step: int, decision: Decision) -> None:
        """Load the newest complete checkpoint in place; the position in the data follows from its step; collective.

        Raises:
            TrainingError: there is no checkpoint, or the same step over the same samples was rolled back before:
                everything up to it repeats to the bit, so it would be rolled back for ever.
        """
        if not decision.by_chance and (step, self.timeline) in self._rolled_back:
            raise TrainingError(
                f"step {step} was to be rolled back a second time: {decision.reason}\n"
                "  the callback must change something: pass over samples, or skip this update when it comes again"
            )
        self._rolled_back.add((step, self.timeline))
        self.callbacks.before_roll_back()
        directory = newest_checkpoint(self.runtime)
        if directory is None:
            raise TrainingError(
                f"step {step} was to be rolled back, and there is no checkpoint yet: {decision.reason}\n"
                "  save more often: checkpoint.every_steps"
            )
        state = load_checkpoint(directory, self.config, self.chunks, self.optimizer, checked=True)
        self.progress.step = state.step
        self._enter_phase(self.timeline.phase(max(self.step, 1)))
        self.progress.skipped_updates = state.skipped_updates
        passed_over, behind = decision.pass_over_samples, self.step
        if decision.past_this_step:  # a phase has samples of its own
            behind = max(self.step, self.timeline.first_step(self.timeline.phase(step)))
            passed_over = self.timeline.samples(step) - self.timeline.samples(behind)
        if passed_over:
            self._set_timeline(self.timeline.passing_over(behind, passed_over))
        self.runtime.logger.warning("step %d is rolled back to %s: %s", step, directory.name, decision.reason)
        self.runtime.events.write(
            "roll_back",
            step=step,
            to_step=self.step,
            checkpoint=directory.name,
            reason=decision.reason,
            passed_over_samples=passed_over,
        )
        self.callbacks.after_roll_back(self.step)

    def _look_for_signals(self) -> bool:
        """Have the run stop if a signal came to any rank, and say whether one did; collective."""
        signalled = self.runtime.signal_on_any_rank()
        if signalled:
            self._stop_by_signal()
        return signalled

    def _stop_by_signal(self) -> None:
        """Have the run stop because a signal came to any rank; a stop that was decided before keeps its reason."""
        if self.progress.stop_reason is None:
            self.progress.stop_reason = self.runtime.signal_reason
            self._stopped_by_signal = True

    def run(self) -> int:
        """Resume, train to the end or to a stop, save, and return the exit code."""
        runtime = self.runtime
        runtime.stop_if_asked()
        if (idle := self.resume_if_possible()) is not None:
            runtime.logger.info("%s; nothing to do", idle)
            runtime.events.write("end", step=self.step, exit_code=EXIT_DONE, reason=idle)
            return EXIT_DONE
        runtime.stop_if_asked()
        runtime.has_trained = True
        try:
            self.callbacks.start()
            if nothing_to_do(self.step, self.config) is None:
                # Only now: a start that is refused may be made again with another configuration and other data.
                if runtime.grid.rank == 0:
                    self._freeze_data(runtime.directory)
                runtime.record()
            self._look_for_signals()
            for report in self.steps():
                self.callbacks.after_step(report)
            if (reason := self.progress.stop_reason) is not None:
                runtime.logger.info("stopping at step %d: %s", self.step, reason)
                runtime.events.write("stop", step=self.step, reason=reason)
            self.callbacks.finish()
            self._has_work_left = self.callbacks.have_work_left()
        except Exception as error:
            self.callbacks.on_error(error, together=isinstance(error, TrainingError))
            raise
        finally:
            self.callbacks.close()
        if self.progress.stop_reason is not None and not self._stopped_by_signal:
            leave_word(self.progress.stop_reason)
        PROGRESS.enter(Part.END)
        runtime.events.write("end", step=self.step, exit_code=self.exit_code)
        return self.exit_code
