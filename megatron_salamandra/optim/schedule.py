"""Learning-rate schedules as pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from megatron_salamandra.config import OptimizerSection


def learning_rate(optimizer: OptimizerSection, step: int, total_steps: int) -> float:
    """Learning rate of the update that turns step ``step - 1`` into ``step``.

    Warm-up is linear, ``lr * step / warmup_steps``, so the first update already moves. Behind it:

    - ``cosine``: ``min_lr + (lr - min_lr) (1 + cos(pi x)) / 2`` with x from 0 at the end of the
      warm-up to 1 at ``total_steps``, the NeMo schedule of the published runs;
    - ``wsd``: ``lr`` until ``decay_steps`` before the end, then linear down to ``min_lr``
      (warm-up, stable, decay: Hu et al. 2024, MiniCPM);
    - ``constant``: ``lr``.

    Args:
        step: 1 for the first update.
        total_steps: length of the run. Cosine depends on it: raising it in a resumed run changes
            the learning rate from that step on.
    """
    if step <= optimizer.warmup_steps:
        return optimizer.lr * step / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.lr
    span = optimizer.lr - optimizer.min_lr
    if optimizer.schedule == "wsd":
        assert optimizer.decay_steps is not None  # the configuration insists on it
        left = max(0, total_steps - step)
        return optimizer.min_lr + span * min(1.0, left / optimizer.decay_steps)
    progress = (step - optimizer.warmup_steps) / max(1, total_steps - optimizer.warmup_steps)
    return optimizer.min_lr + span * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
