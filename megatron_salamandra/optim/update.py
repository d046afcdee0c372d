"""An optimizer step in two halves, so that something can be decided between them.

Together they do what ``MegatronOptimizer.step()`` of Megatron-Core does, in its order, with the same bits (compared
with 0.16.1). Behind the first half the gradients and their norm are known and nothing was updated; leaving out the
second half leaves weights and moments as they were.
"""

from __future__ import annotations

import math

import torch
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from torch import Tensor

from megatron_salamandra.optim.gradient_norm import squared_norm


def ready_gradients(optimizer: MegatronOptimizer) -> Tensor:
    """Hand the model's reduced gradients to the optimizer and measure them; collective, and waits for nothing.

    Returns:
        the squared global L2 norm before clipping, fp32 [1] on the device, equal on all ranks; infinite or NaN if a
        gradient is. :func:`norm_of` makes the norm of it when it was fetched.
    """
    found_inf = optimizer.prepare_grads()
    squared = squared_norm(optimizer)
    return squared.fill_(math.inf) if found_inf else squared


def norm_of(squared: float) -> float:
    """The norm whose square :func:`ready_gradients` returned, as Megatron-Core computes it."""
    return float(squared**0.5)


@torch.no_grad()
def apply_update(optimizer: MegatronOptimizer, grad_norm: float) -> None:
    """Clip the gradients to the optimizer's limit and update the weights; collective.

    Args:
        grad_norm: of what :func:`ready_gradients` returned for this step.
    """
    parts = optimizer.chained_optimizers if isinstance(optimizer, ChainedOptimizer) else [optimizer]
    for part in parts:
        # A rank may hold no parameter of a part, and has nothing to clip then.
        if part.config.clip_grad > 0.0 and (parameters := part.get_parameters()):
            clip_grad_by_total_norm_fp32(parameters, part.config.clip_grad, grad_norm)
    optimizer.step_with_ready_grads()
