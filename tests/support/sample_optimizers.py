"""Optimizers that tests name in configurations."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from megatron_salamandra.optim import ShardedOptimizer


class Sgd(ShardedOptimizer):
    """Stochastic gradient descent with momentum, decayed as AdamW decays."""

    def __init__(self, params: Any, lr: float, weight_decay: float, momentum: float = 0.9) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=momentum)

    def update(self, weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, group: Any) -> None:
        first.mul_(group["momentum"]).add_(gradient)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(first, alpha=-group["lr"])


class SlowAdamW(ShardedOptimizer):
    """AdamW by its formulas, to compare with."""

    def __init__(
        self, params: Any, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps)

    def update(self, weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, group: Any) -> None:
        first.lerp_(gradient, 1 - group["beta1"])
        second.lerp_(gradient.square(), 1 - group["beta2"])
        mean = first / (1 - group["beta1"] ** group["step"])
        spread = (second / (1 - group["beta2"] ** group["step"])).sqrt() + group["eps"]
        weight.mul_(1 - group["lr"] * group["weight_decay"]).addcdiv_(mean, spread, value=-group["lr"])


class NotAnOptimizer:
    """Is none."""
