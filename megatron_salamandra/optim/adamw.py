"""AdamW that counts its steps per parameter group.

Megatron-Core's distributed optimizer saves and restores one step number. That fits the fused
optimizers of Transformer Engine and Apex, which keep ``step`` in the parameter group. With
torch's own AdamW, which keeps one step tensor per parameter, Megatron-Core (0.16.1 to 0.19)
gives all parameters one shared tensor on load, so that after the next update it has been
incremented once per parameter and the bias correction is wrong from there on. This class keeps
the step where the fused optimizers keep it and takes the arithmetic from torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW
from torch.optim.adamw import adamw


class GroupStepAdamW(AdamW):
    """Decoupled weight decay Adam (Loshchilov & Hutter 2019), ``step`` in the parameter group."""

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        adam_w_mode: bool = True,
        capturable: bool = False,
    ) -> None:
        """Arguments as Megatron-Core passes them to the fused optimizers.

        Raises:
            ValueError: ``adam_w_mode`` is False or ``capturable`` (CUDA graphs) is True.
        """
        if not adam_w_mode or capturable:
            raise ValueError("GroupStepAdamW knows decoupled weight decay only, and no CUDA graphs")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # AdamW's version converts per-parameter steps, which do not exist here.
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                    self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
            # The kernel increments these before use; separate elements, never one shared tensor.
            steps = torch.full(
                (len(parameters),), float(group["step"] - 1), device=parameters[0].device
            ).unbind()
            adamw(
                parameters,
                [p.grad for p in parameters],
                [self.state[p]["exp_avg"] for p in parameters],
                [self.state[p]["exp_avg_sq"] for p in parameters],
                [],
                list(steps),
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
            )
        return loss
