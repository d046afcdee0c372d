"""One optimizer step in five phases: read, forward and backward, reduce, decide, update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.data import MicroBatch, StepLoader
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.optim import apply_schedule, apply_update, ready_gradients
from megatron_salamandra.training.callbacks import CallbackList
from megatron_salamandra.training.decision import Action, Decision, strongest
from megatron_salamandra.training.errors import TrainingError
from megatron_salamandra.training.forward_backward import ForwardBackward, LossSum
from megatron_salamandra.training.report import Measurement, StepReport
from megatron_salamandra.training.run_view import Progress
from megatron_salamandra.training.runtime import Runtime


@dataclass(frozen=True)
class StepOutcome:
    """What was measured and decided; a step that is rolled back or stopped has no report."""

    decision: Decision
    report: StepReport | None
    signalled: bool
    """True on all ranks if a rank was asked by a signal to save and leave."""
    stop_requested: bool
    """The same if a callback of any rank asked for a stop."""


@dataclass(frozen=True)
class _Sums:
    """Over all ranks: loss and tokens, and how many ranks want what."""

    nats: float
    tokens: float
    signals: float
    stops: float
    saves: float


class TrainStep:
    """Runs steps. Every phase is a method; nothing changes the weights before the last one."""

    def __init__(
        self,
        runtime: Runtime,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
        *,
        forward_backward: ForwardBackward,
        callbacks: CallbackList,
        clock: Callable[[], float],
    ) -> None:
        """Take the parts of a step.

        Args:
            callbacks: have a say before the update.
            clock: seconds since any moment.
        """
        self._runtime = runtime
        self._config = runtime.config
        self._chunks = chunks
        self._optimizer = optimizer
        self._run_micro_batches = forward_backward
        self._callbacks = callbacks
        self._clock = clock
        self._computed: object | None = None
        for chunk in chunks:
            chunk.config.finalize_model_grads_func = self._reduce_gradients

    def run(self, loader: StepLoader, step: int, progress: Progress) -> StepOutcome:
        """Do ``step``, whose batches the loader hands out next; collective.

        Args:
            progress: has the run's timeline, and what this rank's callbacks have asked for; answered requests
                are cleared.
        """
        started = self._clock()
        PROGRESS.enter(Part.DATA, step=step)
        began, self._computed = self._runtime.platform.mark(), None
        batches = loader.next_step()
        data_ready = self._clock()
        saves = 0.0
        while True:
            loss = self._forward_backward(batches)
            sums = self._reduce(loss, progress)
            saves = max(saves, sums.saves)
            gradients_ready = self._clock()
            measured = self._measure(step, sums.nats / sums.tokens)
            asked = self._clock()
            decision = self._callbacks.before_decision(measured)
            if decision.action is not Action.REPEAT:
                break
        if decision.action is Action.APPLY:
            decision = self._decide(measured)
        decided = self._clock()
        if decision.action is Action.APPLY:
            PROGRESS.enter(Part.UPDATE)
            apply_update(self._optimizer, measured.grad_norm)
        self._runtime.platform.synchronize()
        ended = self._clock()
        PROGRESS.step_done(ended - started)
        report = StepReport(
            step=step,
            loss=measured.loss,
            grad_norm=measured.grad_norm,
            lr=measured.lr,
            tokens=progress.timeline.tokens(step),
            step_tokens=progress.timeline.step_tokens(step),
            applied=decision.action is Action.APPLY,
            save_requested=saves > 0,
            seconds={
                "data": data_ready - started,
                "forward_backward": gradients_ready - data_ready,
                "decide": decided - asked,
                "optimizer": ended - gradients_ready - (decided - asked),
                "step": ended - started,
            },
            memory_bytes=self._runtime.platform.peak_memory_bytes(),
            busy_seconds=(
                self._runtime.platform.seconds_between(began, self._computed)
                if self._computed
                else ended - started
            ),
        )
        done = decision.action in (Action.APPLY, Action.SKIP)
        return StepOutcome(decision, report if done else None, sums.signals > 0, sums.stops > 0)

    def _forward_backward(self, batches: list[MicroBatch]) -> LossSum:
        PROGRESS.enter(Part.FORWARD)
        for chunk in self._chunks:
            chunk.train()
            chunk.zero_grad_buffer()
        self._optimizer.zero_grad()
        return self._run_micro_batches(self._chunks, batches, self._config, self._runtime.grid)

    def _reduce_gradients(self, *arguments: Any, **options: Any) -> None:
        """Megatron-Core's ``finalize_model_grads``, which the schedule calls after the last backward pass."""
        PROGRESS.enter(Part.REDUCE, "gradients")
        self._computed = self._runtime.platform.mark()
        finalize_model_grads(*arguments, **options)

    def _reduce(self, loss: LossSum, progress: Progress) -> _Sums:
        """Add up what the ranks have to say, so that all of them go the same way."""
        PROGRESS.enter(Part.REDUCE, "loss")
        signalled = self._runtime.signals.received is not None
        wishes = [signalled, progress.stop_request is not None, progress.save_request]
        sums = self._runtime.sum_over_ranks([loss.nats, loss.tokens, *map(float, wishes)])
        progress.save_request = False
        self._runtime.platform.synchronize()
        return _Sums(*sums)

    def _measure(self, step: int, loss: float) -> Measurement:
        """Everything that is known of the update before it is made, equal on all ranks."""
        PROGRESS.enter(Part.REDUCE, "gradient norm")
        rate = apply_schedule(self._optimizer, self._config, step)
        return Measurement(step, loss, ready_gradients(self._optimizer), rate)

    def _decide(self, measured: Measurement) -> Decision:
        """What becomes of an update, the same on all ranks.

        Raises:
            TrainingError: it would spoil the weights, and no callback has another answer.
        """
        decision = self._agree(self._callbacks.before_update(measured))
        if decision.action is not Action.APPLY or measured.not_finite is None:
            return decision
        name, value = measured.not_finite
        raise TrainingError(
            f"the {name} of step {measured.step} is {value}; nothing was updated\n"
            "  resume from the last checkpoint with a lower learning rate, or look at the data of this step"
        )

    def _agree(self, mine: Decision) -> Decision:
        """The strongest decision of all ranks; collective where a callback has a say."""
        if not self._callbacks.have_a_say:
            return mine
        PROGRESS.enter(Part.DECIDE, "the other ranks")
        if self._runtime.max_over_ranks(mine.action) == Action.APPLY:
            return mine
        found: list[Any] = [None] * self._runtime.grid.world_size
        dist.all_gather_object(found, mine)
        return strongest(found)
