"""The trainer: builds everything from a configuration, resumes, and yields optimizer steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.checkpoint import load_checkpoint
from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.data import DocumentRules, SampleStream, StepLoader
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED
from megatron_salamandra.model import build_model_chunks
from megatron_salamandra.optim import apply_schedule, build_optimizer
from megatron_salamandra.run_directory import CONFIG, CheckpointError, latest_checkpoint
from megatron_salamandra.training.callbacks import CallbackList, default_callbacks
from megatron_salamandra.training.environment import package_versions
from megatron_salamandra.training.forward_backward import run_micro_batches
from megatron_salamandra.training.recipe_changes import recipe_changes
from megatron_salamandra.training.report import StepReport
from megatron_salamandra.training.run_data import open_data
from megatron_salamandra.training.runtime import Runtime
from salamandra_data.blend_plan import BlendPlan


class TrainingError(UserError):
    """Training cannot go on; the message says at which step and what to do."""


class Trainer:
    """One run on one rank. Build it, resume it, then walk :meth:`steps`."""

    def __init__(
        self,
        runtime: Runtime,
        plan: BlendPlan,
        stream: SampleStream,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
    ) -> None:
        """Use :meth:`build`; the parts are arguments so that tests can replace them."""
        self.runtime = runtime
        self.config: RunConfig = runtime.config
        self.plan = plan
        self.stream = stream
        self.chunks = chunks
        self.optimizer = optimizer
        self.step = 0
        """Optimizer steps done since the beginning of the run."""
        self.stop_reason: str | None = None
        """Why the run ends before its last step; None while it goes on or is complete."""
        self.callbacks = CallbackList(default_callbacks(self))

    @classmethod
    def build(cls, runtime: Runtime) -> Trainer:
        """Check the data, then build model and optimizer (the expensive part).

        Raises:
            ConfigError, DataError: blend, earlier phase and configuration do not fit each other.
        """
        config = runtime.config
        plan, stream = open_data(config, runtime.directory, runtime.grid, runtime.logger)
        chunks = build_model_chunks(config, runtime.grid, runtime.platform)
        optimizer = build_optimizer(config, chunks, runtime.platform)
        for chunk in chunks:
            chunk.config.finalize_model_grads_func = finalize_model_grads
            chunk.config.grad_scale_func = optimizer.scale_loss
            if config.optimizer.overlap_grad_reduce:
                chunk.config.no_sync_func = [c.no_sync for c in chunks] if len(chunks) > 1 else chunk.no_sync
        return cls(runtime, plan, stream, chunks, optimizer)

    @property
    def document_rules(self) -> DocumentRules | None:
        """How the ends of documents inside a window count; None where they do not."""
        data = self.config.data
        if not (data.document_masking or data.reset_positions):
            return None
        return DocumentRules(self.plan.tokenizer.eod_id, data.document_masking, data.reset_positions)

    @property
    def checkpoints(self) -> Path:
        """Directory of the run's checkpoints."""
        return self.runtime.directory.checkpoints

    @property
    def consumed_samples(self) -> int:
        """Samples trained on since the beginning of the run."""
        return self.step * self.config.training.global_batch_size

    @property
    def exit_code(self) -> int:
        """75 if the run was stopped before its last step, else 0."""
        return EXIT_STOPPED if self.step < self.config.total_steps else EXIT_DONE

    def resume_if_possible(self) -> None:
        """Load the latest complete checkpoint of the run directory, if there is one; collective.

        Raises:
            CheckpointError: it is damaged, of another model, or of another stream of data.
        """
        # Rank 0 decides: file systems of clusters show a new directory to every node in its own time.
        found = [latest_checkpoint(self.checkpoints) if self.runtime.grid.rank == 0 else None]
        dist.broadcast_object_list(found, src=0)
        directory = found[0]
        if directory is None:
            self.runtime.events.write("start", layout=self.runtime.grid.describe())
            return
        state = load_checkpoint(directory, self.config, self.chunks, self.optimizer)
        self._check_same_stream(directory, state)
        self.step = int(state["step"])
        self.runtime.logger.info("resumed from %s at step %d", directory, self.step)
        self._tell_changes(directory)
        if state["total_steps"] != self.config.total_steps:
            self.runtime.logger.warning(
                "the run had %d steps and has %d now: schedules that depend on it change from here on",
                state["total_steps"],
                self.config.total_steps,
            )
        self.runtime.events.write(
            "resume", step=self.step, checkpoint=directory.name, layout=self.runtime.grid.describe()
        )

    def _tell_changes(self, directory: Path) -> None:
        """Log every setting of the recipe that the checkpoint was trained with and this run changes."""
        saved = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
        for change in recipe_changes(saved, self.config.to_dict()):
            self.runtime.logger.warning(
                "%s was %s and is %s from here on", change.key, change.before, change.now
            )
            self.runtime.events.write("change", key=change.key, before=change.before, now=change.now)

    def _check_same_stream(self, directory: Path, state: dict[str, Any]) -> None:
        if state["stream"] != self.stream.fingerprint():
            raise CheckpointError(
                f"{directory} was trained on another stream of samples: the blend's shards or factors, the "
                "start ordinals, the sequence length or the seed differ\n  restore them, or start a new run_dir"
            )
        expected = int(state["step"]) * self.config.training.global_batch_size
        if state["consumed_samples"] != expected:
            raise ConfigError(
                f"training.global_batch_size = {self.config.training.global_batch_size} is not that of "
                f"{directory}, which consumed {state['consumed_samples']} samples in {state['step']} steps\n"
                f"  use {state['consumed_samples'] // int(state['step'])}, or start a new run_dir"
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint records besides tensors (``state.json``)."""
        return {
            "step": self.step,
            "total_steps": self.config.total_steps,
            "consumed_samples": self.consumed_samples,
            "consumed_tokens": self.consumed_samples * self.config.model.sequence_length,
            "stream": self.stream.fingerprint(),
            "layout": self.runtime.grid.describe(),
            "versions": package_versions(),
            "ledger": [
                {
                    "language": entry.language,
                    "samples": entry.samples,
                    "tokens": entry.tokens,
                    "epochs": entry.epochs,
                    "next_ordinal": entry.next_ordinal,
                }
                for entry in self.stream.ledger(self.consumed_samples)
            ],
        }

    def steps(self) -> Iterator[StepReport]:
        """Train until the last step, a stop request, or a signal; yields after each optimizer step."""
        training = self.config.training
        stop_after = min(training.stop_after_steps or self.config.total_steps, self.config.total_steps)
        with StepLoader(
            self.stream,
            micro_batch_size=training.micro_batch_size,
            global_batch_size=training.global_batch_size,
            data_parallel_rank=self.runtime.grid.data_rank,
            data_parallel_size=self.runtime.grid.data_size,
            first_step=self.step,
            prefetch_steps=self.config.data.prefetch_steps,
            documents=self.document_rules,
        ) as loader:
            while self.step < stop_after and self.stop_reason is None:
                report = self._train_step(loader)
                self.step = report.step
                if self.step == stop_after < self.config.total_steps:
                    self.stop_reason = "training.stop_after_steps"
                yield report

    def _train_step(self, loader: StepLoader) -> StepReport:
        platform, step = self.runtime.platform, self.step + 1
        started = time.perf_counter()
        batches = loader.next_step()
        data_ready = time.perf_counter()
        for chunk in self.chunks:
            chunk.train()
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        loss = run_micro_batches(self.chunks, batches, self.config, self.runtime.grid)
        nats, tokens, stops = self.runtime.sum_over_ranks(
            [loss.nats, loss.tokens, float(self.runtime.signals.received is not None)]
        )
        mean = nats / tokens
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss of step {step} is {mean}; nothing was updated\n"
                "  resume from the last checkpoint with a lower learning rate, or look at the data of this step"
            )
        platform.synchronize()
        gradients_ready = time.perf_counter()
        rate = apply_schedule(self.optimizer, self.config, step)
        _, grad_norm, _ = self.optimizer.step()
        platform.synchronize()
        ended = time.perf_counter()
        if grad_norm is None or not math.isfinite(grad_norm):
            raise TrainingError(
                f"the gradient norm of step {step} is {grad_norm}; the weights in memory are lost\n"
                "  resume from the last checkpoint with a lower learning rate"
            )
        if stops:
            self.stop_reason = f"signal {self.runtime.signals.received or 'on another rank'}"
        return StepReport(
            step=step,
            loss=mean,
            grad_norm=float(grad_norm),
            lr=rate,
            tokens=step * self.config.tokens_per_step,
            step_tokens=self.config.tokens_per_step,
            seconds={
                "data": data_ready - started,
                "forward_backward": gradients_ready - data_ready,
                "optimizer": ended - gradients_ready,
                "step": ended - started,
            },
            memory_bytes=platform.peak_memory_bytes(),
        )

    def run(self) -> int:
        """Resume, train to the end or to a stop, save, and return the exit code."""
        self.resume_if_possible()
        self.runtime.record()
        self.callbacks.start()
        try:
            for report in self.steps():
                self.callbacks.after_step(report)
        except TrainingError:
            self.callbacks.abandon()
            raise
        if self.stop_reason is not None:
            self.runtime.logger.info("stopping at step %d: %s", self.step, self.stop_reason)
            self.runtime.events.write("stop", step=self.step, reason=self.stop_reason)
        self.callbacks.finish()
        self.runtime.events.write("end", step=self.step, exit_code=self.exit_code)
        return self.exit_code
