"""The learning rate as a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from megatron_salamandra.config.sections import OptimizerSection

if TYPE_CHECKING:
    from megatron_salamandra.config.phases import LearningRateSection
    from megatron_salamandra.config.run_config import RunConfig


@dataclass(frozen=True)
class RateSpan:
    """One schedule over one phase, or over several that go on in it.

    Attributes:
        first_phase: number of the phase it starts with.
        first_step: steps of the run before it.
        steps: its length.
        join: how it joins the span before.
        optimizer: peak, end and shape.
        start: rate that its warm-up starts from.
    """

    first_phase: int
    first_step: int
    steps: int
    join: Literal["continue", "restart", "rewarm"]
    optimizer: OptimizerSection
    start: float

    def rate(self, step: int) -> float:
        """Learning rate of step ``step`` of the run."""
        return learning_rate(self.optimizer, step - self.first_step, self.steps, start=self.start)


def rate_spans(config: RunConfig) -> list[RateSpan]:
    """The schedules of a run, in order; a run without phases has one."""
    spans: list[RateSpan] = []
    done = 0
    for number, phase in enumerate(config.phases.values()):
        rate, steps = phase.learning_rate, config.phase_steps(number)
        last = spans[-1] if spans else None
        if last is not None and rate.join == "continue":
            spans[-1] = RateSpan(
                last.first_phase, last.first_step, last.steps + steps, last.join, last.optimizer, last.start
            )
        else:
            start = last.rate(done) if last is not None and rate.join == "rewarm" else 0.0
            spans.append(RateSpan(number, done, steps, rate.join, _own(config.optimizer, rate), start))
        done += steps
    return spans or [RateSpan(0, 0, config.total_steps, "continue", config.optimizer, 0.0)]


def _own(optimizer: OptimizerSection, rate: LearningRateSection) -> OptimizerSection:
    given = rate.model_dump(exclude={"join"}, exclude_none=True)
    return optimizer.model_copy(update=given)


def learning_rate_of(config: RunConfig, step: int) -> float:
    """Learning rate of the update that turns step ``step - 1`` of the run into ``step``."""
    spans = rate_spans(config)
    span = next((span for span in reversed(spans) if step > span.first_step), spans[0])
    return span.rate(step)


def learning_rate(optimizer: OptimizerSection, step: int, total_steps: int, *, start: float = 0.0) -> float:
    """Learning rate of the update that turns step ``step - 1`` of a schedule into ``step``.

    Warm-up is linear from ``start``, ``lr * step / warmup_steps`` from 0, so the first update already moves. Behind it:

    - ``cosine``: ``min_lr + (lr - min_lr) (1 + cos(pi x)) / 2`` with x from 0 at the end of the
      warm-up to 1 at ``total_steps``, the NeMo schedule of the published runs;
    - ``wsd``: ``lr`` until ``decay_steps`` before the end, then linear down to ``min_lr``
      (warm-up, stable, decay: Hu et al. 2024, MiniCPM);
    - ``constant``: ``lr``.

    Args:
        step: 1 for the first update.
        total_steps: length of the schedule. Cosine depends on it: raising it in a resumed run changes
            the learning rate from that step on.
    """
    if step <= optimizer.warmup_steps:
        return start + (optimizer.lr - start) * step / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.lr
    span = optimizer.lr - optimizer.min_lr
    if optimizer.schedule == "wsd":
        assert optimizer.decay_steps is not None  # the configuration insists on it
        left = max(0, total_steps - step)
        return optimizer.min_lr + span * min(1.0, left / optimizer.decay_steps)
    progress = (step - optimizer.warmup_steps) / max(1, total_steps - optimizer.warmup_steps)
    return optimizer.min_lr + span * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
