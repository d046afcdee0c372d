"""One optimizer step in five phases: read, forward and backward, reduce, decide, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor
from torch.profiler import record_function

from megatron_salamandra.data import MicroBatch
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.optim import apply_schedule, apply_update, norm_of, ready_gradients
from megatron_salamandra.training.callbacks import CallbackList
from megatron_salamandra.training.decision import Action, Decision, strongest
from megatron_salamandra.training.device_feed import DeviceFeed
from megatron_salamandra.training.errors import TrainingError
from megatron_salamandra.training.forward_backward import ForwardBackward, LossSum, exact_divisor
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
    """How many ranks want what, and the sums of what callbacks gave."""

    signals: float
    stops: float
    saves: float
    of_callbacks: dict[str, list[float]]


def _range(part: str) -> AbstractContextManager[object]:
    """A part of the step in a profile, where one is made."""
    return record_function(f"salamandra/{part}")


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
        self._tokens = 0
        for chunk in chunks:
            chunk.config.finalize_model_grads_func = self._reduce_gradients

    def run(self, feed: DeviceFeed, step: int, progress: Progress) -> StepOutcome:
        """Do ``step``, whose batches the feed hands out next; collective.

        It waits for the device once, for everything that is to be known before the update.

        Args:
            progress: has the run's timeline, and what this rank's callbacks have asked for; answered requests
                are cleared.
        """
        started = self._clock()
        PROGRESS.enter(Part.DATA, step=step)
        began, self._computed = self._runtime.platform.mark(), None
        with _range("data"):
            batches = feed.next_step()
        data_ready = self._clock()
        saves = 0.0
        while True:
            with _range("forward_backward"):
                loss = self._forward_backward(batches, progress.timeline.step_tokens(step))
            feed.look_ahead()
            with _range("reduce"):
                sums, measured = self._measure(step, loss, progress)
            saves = max(saves, sums.saves)
            asked = self._clock()
            with _range("decide"):
                decision = self._callbacks.before_decision(measured)
            if decision.action is not Action.REPEAT:
                break
        if decision.action is Action.APPLY:
            with _range("decide"):
                decision = self._decide(measured)
        decided = self._clock()
        if decision.action is Action.APPLY:
            PROGRESS.enter(Part.UPDATE)
            with _range("update"):
                apply_update(self._optimizer, measured.grad_norm)
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
                "forward_backward": asked - data_ready,
                "decide": decided - asked,
                "optimizer": ended - decided,
                "step": ended - started,
            },
            sums=sums.of_callbacks,
            memory_bytes=self._runtime.platform.peak_memory_bytes(),
            busy_seconds=(
                self._runtime.platform.seconds_between(began, self._computed)
                if self._computed
                else ended - started
            ),
        )
        done = decision.action in (Action.APPLY, Action.SKIP)
        return StepOutcome(decision, report if done else None, sums.signals > 0, sums.stops > 0)

    def _forward_backward(self, batches: list[MicroBatch], tokens: int) -> LossSum:
        """Gradients of the step, as means over its ``tokens`` of all ranks, every one of which is valid."""
        PROGRESS.enter(Part.FORWARD)
        self._tokens = tokens
        for chunk in self._chunks:
            chunk.train()
            chunk.zero_grad_buffer()
        self._optimizer.zero_grad()
        grid = self._runtime.grid
        return self._run_micro_batches(self._chunks, batches, self._config, grid, exact_divisor(tokens))

    def _reduce_gradients(
        self, model: list[DistributedDataParallel], counted: object = None, **options: Any
    ) -> None:
        """Megatron-Core's ``finalize_model_grads``, which the schedule calls after the last backward pass.

        Not told of the tokens that were counted, because it would add them up over the ranks and fetch them, once for
        each chunk: their number is known.
        """
        PROGRESS.enter(Part.REDUCE, "gradients")
        self._computed = self._runtime.platform.mark()
        with _range("reduce"):
            finalize_model_grads(model, None, **options)
        if exact_divisor(self._tokens) != self._tokens:
            scaling = 1.0 / torch.full(
                (), self._tokens, dtype=torch.float32, device=self._runtime.platform.device
            )
            for chunk in model:
                chunk.scale_gradients(scaling)

    def _measure(self, step: int, loss: LossSum, progress: Progress) -> tuple[_Sums, Measurement]:
        """What the ranks have to say, and all that is known of the update before it is made; equal on all ranks."""
        PROGRESS.enter(Part.REDUCE, "loss")
        signalled = self._runtime.signals.received is not None
        wishes = [signalled, progress.stop_request is not None, progress.save_request]
        progress.save_request = False
        asked = self._callbacks.to_sum(step)
        sums = self._on_device([*wishes, *chain(*asked.values())], loss)
        dist.all_reduce(sums)
        PROGRESS.enter(Part.REDUCE, "gradient norm")
        rate = apply_schedule(self._optimizer, self._config, step)
        squared = ready_gradients(self._optimizer)
        nats, tokens, signals, stops, saves, *rest = self._runtime.platform.fetch(
            torch.cat([sums, squared.double()])
        )
        norm = norm_of(rest.pop())
        given = iter(rest)
        of_callbacks = {name: list(islice(given, len(numbers))) for name, numbers in asked.items()}
        return _Sums(signals, stops, saves, of_callbacks), Measurement(step, nats / tokens, norm, rate)

    def _on_device(self, numbers: Sequence[float], loss: LossSum) -> Tensor:
        """The loss and other numbers, most of them zero, in one tensor of fp64; nobody waits for a copy."""
        together = torch.zeros(2 + len(numbers), dtype=torch.float64, device=self._runtime.platform.device)
        torch.stack([loss.nats, loss.tokens], out=together[:2])
        for place, number in enumerate(numbers, 2):
            if number:
                together[place].fill_(number)
        return together

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
