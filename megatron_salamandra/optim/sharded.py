"""The base of optimizers that Megatron-Core's distributed optimizer can shard, save and reshard.

The distributed optimizer (ZeRO-1) hands each rank flat pieces of fp32 master weights, so an optimizer for it treats
every element on its own. Its checkpoints have two tensors for each weight, ``exp_avg`` and ``exp_avg_sq``, and one
step for each parameter group; whoever keeps the state there is saved, resharded and rolled back like AdamW.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ShardedOptimizer(torch.optim.Optimizer):
    """An optimizer of your own: override :meth:`update`.

    A subclass's ``__init__`` takes ``params``, ``lr`` and ``weight_decay``, any of ``beta1``, ``beta2`` and ``eps``
    (given from the section ``optimizer`` if it names them) and options of its own, and hands all but ``params`` to
    this one: what it hands over is in ``group`` at every update, and in the checkpoint.
    """

    def __init__(self, params: Any, **hyperparameters: Any) -> None:
        super().__init__(params, hyperparameters)

    @abstractmethod
    def update(self, weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, group: Any) -> None:
        """Change ``weight`` and the state in place.

        Args:
            weight: fp32, a flat piece of a weight matrix or vector.
            gradient: fp32, of the same shape; clipped, and free to be overwritten.
            first, second: the state, zeros at the beginning; what is not needed stays zero.
            group: hyperparameters by name, the learning rate of this step and ``step`` (from 1) among them.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every piece that has a gradient."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["exp_avg"] = torch.zeros_like(weight)
                    state["exp_avg_sq"] = torch.zeros_like(weight)
                self.update(weight, weight.grad, state["exp_avg"], state["exp_avg_sq"], group)
        return None
