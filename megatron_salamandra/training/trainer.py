"""The trainer: builds everything from a configuration, resumes, and yields optimizer steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.checkpoint import CheckpointWriter, SaveOutcome, load_checkpoint
from megatron_salamandra.cluster import leave_word
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.data import DocumentRules, RunStream, SourceLedger, StepLoader, validation_sets
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED
from megatron_salamandra.model import build_model_chunks, unwrap
from megatron_salamandra.optim import build_optimizer, check_optimizer
from megatron_salamandra.run_directory import (
    CONFIG,
    CheckpointError,
    CheckpointState,
    LedgerRecord,
    latest_checkpoint,
    resolve_checkpoint,
    step_of,
)
from megatron_salamandra.timeline import Timeline, trained_steps
from megatron_salamandra.training.callbacks import Callback, CallbackList
from megatron_salamandra.training.callbacks.checkpointing import Checkpointing
from megatron_salamandra.training.callbacks.configured import configured_callbacks
from megatron_salamandra.training.callbacks.validation import HeldOut, Validation
from megatron_salamandra.training.decision import Action, Decision, strongest
from megatron_salamandra.training.environment import package_versions
from megatron_salamandra.training.forward_backward import ForwardBackward, run_micro_batches
from megatron_salamandra.training.metrics.book import MetricBook
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.metrics.step_metrics import StepMetrics
from megatron_salamandra.training.phase_changes import check_trained_phases
from megatron_salamandra.training.recipe_changes import check_same_optimizer, recipe_changes
from megatron_salamandra.training.report import Measurement, StepReport
from megatron_salamandra.training.run_data import open_data
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


class TrainingError(UserError):
    """Training cannot go on; the message says at which step and what to do."""


@dataclass(frozen=True)
class TrainerParts:
    """What a program or a test may replace in a trainer, or add to it."""

    forward_backward: ForwardBackward = run_micro_batches
    open_loader: Callable[..., StepLoader] = StepLoader
    clock: Callable[[], float] = time.perf_counter
    callbacks: Sequence[Callback] = ()
    """Besides those of the configuration, and called after them."""
    sinks: Sequence[Sink] = ()
    """Besides those of the configuration."""


class Trainer:
    """One run on one rank. Build it, resume it, then walk :meth:`steps`."""

    def __init__(
        self,
        runtime: Runtime,
        data: RunStream,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
        parts: TrainerParts | None = None,
    ) -> None:
        """Use :meth:`build`; the parts are arguments so that tests can replace them."""
        parts = parts or TrainerParts()
        self.runtime = runtime
        self.config: RunConfig = runtime.config
        self.data = data
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
        self._train_step = TrainStep(
            runtime,
            chunks,
            optimizer,
            forward_backward=parts.forward_backward,
            decide=self._decide,
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
            self.checkpoints,
            config.checkpoint,
            config_yaml=config.to_yaml(),
            tokenizer=self.data.phases[0].plan.tokenizer.path,
            owner=runtime.owner,
        )

        def save(step: int) -> list[SaveOutcome]:
            return writer.save(step, self.chunks, self.optimizer, self.state())

        callbacks = in_order(
            run,
            self._metrics,
            measure=StepMetrics(
                runtime.platform.peak_flops(config.precision), lambda: self.callbacks.take_seconds()
            ),
            others=[*configured_callbacks(config), *parts.callbacks],
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
        chunks = build_model_chunks(config, runtime.grid, runtime.platform)
        optimizer = build_optimizer(config, chunks, runtime.platform)
        for chunk in chunks:
            chunk.config.finalize_model_grads_func = finalize_model_grads
            chunk.config.grad_scale_func = optimizer.scale_loss
            if config.optimizer.overlap_grad_reduce:
                chunk.config.no_sync_func = [c.no_sync for c in chunks] if len(chunks) > 1 else chunk.no_sync
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
    def checkpoints(self) -> Path:
        """Directory of the run's checkpoints."""
        return self.runtime.directory.checkpoints

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
        """Load the latest complete checkpoint of the run directory, if there is one; collective.

        Returns:
            Why there is nothing to do, if there is not; then nothing was loaded.
        Raises:
            CheckpointError: it is damaged, of another model, or of another stream of data.
        """
        directory = self._newest_checkpoint()
        if self.runtime.grid.rank == 0:
            tell_lost_steps(
                self.runtime.directory, step_of(directory) if directory else 0, self.runtime.logger
            )
        if directory is None:
            self._initialize_weights()
            self.runtime.events.write("start", layout=self.runtime.grid.describe())
            return None
        self.progress.step = step_of(directory)
        idle = nothing_to_do(self.step, self.config)
        if idle is not None and not self.callbacks.have_work_left():
            return idle
        check_same_optimizer(directory, self.config)
        state = load_checkpoint(directory, self.config, self.chunks, self.optimizer)
        self.progress.step = state.step
        self._set_timeline(self._timeline_after(directory, state))
        self._check_same_stream(directory, state)
        self._enter_phase(self.timeline.phase(max(self.step, 1)))
        self.progress.skipped_updates = state.skipped_updates
        self._tell_unknown(self.callbacks.load_state(state.callbacks))
        self.runtime.logger.info("resumed from %s at step %d", directory, self.step)
        self._tell_changes(directory)
        if state.total_steps != self.config.total_steps:
            self.runtime.logger.warning(
                "the run had %d steps and has %d now: schedules that depend on it change from here on",
                state.total_steps,
                self.config.total_steps,
            )
        self.runtime.events.write(
            "resume", step=self.step, checkpoint=directory.name, layout=self.runtime.grid.describe()
        )
        return None

    def _initialize_weights(self) -> None:
        """Take the weights alone of ``initialize_from``, if it is given; collective.

        Raises:
            CheckpointError: it is no checkpoint of the same model.
        """
        place = self.config.initialize_from
        if place is None:
            return
        if (place / "config.json").is_file():
            raise CheckpointError(
                f"initialize_from = {place}: is a Hugging Face model, which training cannot start from yet\n"
                "  name a run directory or one of its checkpoints"
            )
        directory = resolve_checkpoint(place)
        load_checkpoint(directory, self.config, self.chunks, None)
        self.optimizer.reload_model_params()  # the fp32 masters are copies
        self.runtime.logger.info("the weights are those of %s", directory)
        self.runtime.events.write("initialize", checkpoint=str(directory))

    def _tell_unknown(self, names: Sequence[str]) -> None:
        """Log whose states in a checkpoint no callback of this run has taken over."""
        if names:
            self.runtime.logger.warning(
                "the checkpoint has the state of the callback %s, which this run does not have: it ends here",
                ", ".join(names),
            )

    def _newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint, or None; collective."""
        # Rank 0 decides: file systems of clusters show a new directory to every node in its own time.
        found = [latest_checkpoint(self.checkpoints) if self.runtime.grid.rank == 0 else None]
        dist.broadcast_object_list(found, src=0)
        return found[0]

    def _tell_changes(self, directory: Path) -> None:
        """Log every setting of the recipe that the checkpoint was trained with and this run changes."""
        saved = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
        for change in recipe_changes(saved, self.config.to_dict()):
            self.runtime.logger.warning(
                "%s was %s and is %s from here on", change.key, change.before, change.now
            )
            self.runtime.events.write("change", key=change.key, before=change.before, now=change.now)

    def _check_same_stream(self, directory: Path, state: CheckpointState) -> None:
        if state.phase_streams != self.data.fingerprints(state.step):
            raise CheckpointError(
                f"{directory} was trained on another stream of samples: the blend's shards or factors, the "
                "start ordinals, the sequence length or the seed differ\n  restore them, or start a new run_dir"
            )

    def _timeline_after(self, directory: Path, state: CheckpointState) -> Timeline:
        """The run's timeline, of which the checkpoint has the beginning.

        Raises:
            CheckpointError: the checkpoint contradicts itself.
            ConfigError: its steps were of another size.
        """
        try:
            trained = trained_steps(state.values)
        except ValueError as error:
            raise CheckpointError(f"{directory}: {error}; use another checkpoint") from error
        if trained is None:
            return self.timeline
        before, now = trained.segments[-1].batch_size, self.config.training.global_batch_size
        if before != now and not self.config.phases and len(trained.phases) == 1:
            raise ConfigError(
                f"training.global_batch_size = {now} is not that of {directory}, which consumed "
                f"{state.consumed_samples} samples in {state.step} steps\n"
                f"  use {before}, or start a new run_dir"
            )
        saved = load_run_config(str(directory / CONFIG))
        if self.config.phases or saved.phases:
            check_trained_phases(directory, saved, self.config, trained)
        return self.timeline.going_on_from(trained)

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
            ledger=[
                LedgerRecord(
                    entry.source,
                    entry.language,
                    entry.samples,
                    entry.tokens,
                    entry.epochs,
                    entry.next_ordinal,
                )
                for entry in self.ledger(self.step)
            ],
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
                yield from self._steps_without_roll_back(loader, end, stop_after)

    def _enter_phase(self, number: int) -> None:
        """Have the model and the run directory be in a phase; its first step is told."""
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
                phase.plan, config.data.sequence_length, config.validation.samples_per_language
            )
            self._held_out_text = {number: HeldOut(sets, config.training.micro_batch_size)}
        return self._held_out_text[number]

    def _steps_without_roll_back(self, loader: StepLoader, end: int, stop_after: int) -> Iterator[StepReport]:
        """Steps up to ``end`` in the loader's order, unless the run stops or is somewhere else after a roll-back."""
        progress = self.progress
        while progress.step < end and progress.stop_reason is None:
            step = progress.step + 1
            outcome = self._train_step.run(loader, step, progress)
            if outcome.signalled:
                progress.stop_reason = f"signal {self.runtime.signals.received or 'on another rank'}"
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

    def _roll_back(self, step: int, decision: Decision) -> None:
        """Load the newest complete checkpoint in place; the position in the data follows from its step; collective.

        Raises:
            TrainingError: there is no checkpoint, or the same step over the same samples was rolled back before:
                everything up to it repeats to the bit, so it would be rolled back for ever.
        """
        if (step, self.timeline) in self._rolled_back:
            raise TrainingError(
                f"step {step} was to be rolled back a second time: {decision.reason}\n"
                "  the callback must change something: pass over samples, or skip this update when it comes again"
            )
        self._rolled_back.add((step, self.timeline))
        self.callbacks.before_roll_back()
        directory = self._newest_checkpoint()
        if directory is None:
            raise TrainingError(
                f"step {step} was to be rolled back, and there is no checkpoint yet: {decision.reason}\n"
                "  save more often: checkpoint.every_steps"
            )
        state = load_checkpoint(directory, self.config, self.chunks, self.optimizer)
        self.progress.step = state.step
        self._enter_phase(self.timeline.phase(max(self.step, 1)))
        self.progress.skipped_updates = state.skipped_updates
        if decision.pass_over_samples:
            self._set_timeline(self.timeline.passing_over(self.step, decision.pass_over_samples))
        self.runtime.logger.warning("step %d is rolled back to %s: %s", step, directory.name, decision.reason)
        self.runtime.events.write(
            "roll_back",
            step=step,
            to_step=self.step,
            checkpoint=directory.name,
            reason=decision.reason,
            passed_over_samples=decision.pass_over_samples,
        )
        self.callbacks.after_roll_back(self.step)

    def _decide(self, measured: Measurement) -> Decision:
        """What becomes of an update, the same on all ranks.

        Raises:
            TrainingError: it would spoil the weights, and no callback has another answer.
        """
        decision = self._agree(self.callbacks.before_update(measured))
        if decision.action is not Action.APPLY or measured.finite:
            return decision
        name, value = ("loss", measured.loss)
        if math.isfinite(measured.loss):
            name, value = ("gradient norm", measured.grad_norm)
        raise TrainingError(
            f"the {name} of step {measured.step} is {value}; nothing was updated\n"
            "  resume from the last checkpoint with a lower learning rate, or look at the data of this step"
        )

    def _agree(self, mine: Decision) -> Decision:
        """The strongest decision of all ranks; collective where a callback has a say."""
        if not self.callbacks.have_a_say:
            return mine
        if self.runtime.max_over_ranks(mine.action) == Action.APPLY:
            return mine
        found: list[Any] = [None] * self.runtime.grid.world_size
        dist.all_gather_object(found, mine)
        return strongest(found)

    def _look_for_signals(self) -> bool:
        """Have the run stop if a signal came to any rank, and say whether one did; collective."""
        reason = self.runtime.signal_on_any_rank()
        self.progress.stop_reason = self.progress.stop_reason or reason
        return reason is not None

    def run(self) -> int:
        """Resume, train to the end or to a stop, save, and return the exit code."""
        runtime = self.runtime
        runtime.stop_if_asked()
        if (idle := self.resume_if_possible()) is not None:
            runtime.logger.info("%s; nothing to do", idle)
            runtime.events.write("end", step=self.step, exit_code=EXIT_DONE, reason=idle)
            return EXIT_DONE
        runtime.stop_if_asked()
        if nothing_to_do(self.step, self.config) is None:
            runtime.record()
        runtime.has_trained = True
        try:
            self.callbacks.start()
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
        if self.progress.stop_reason == STOP_AFTER_STEPS:
            leave_word(STOP_AFTER_STEPS)
        runtime.events.write("end", step=self.step, exit_code=self.exit_code)
        return self.exit_code
