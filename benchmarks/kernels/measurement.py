"""One implementation of one task: the same numbers as eager torch, then time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from stopwatch import Limits, peak_extra_bytes, time_of
from tasks import Task
from torch import Tensor

# The first so many numbers of every result are compared with eager torch.
COMPARED = 1 << 20
# bf16 keeps 8 bits: separately rounded operations differ by 0.3 % in norm; a wrong formula by far more.
LARGEST_DIFFERENCE = 0.02


class Bench:
    """The tensors of one task on the device, and the runs over them."""

    def __init__(self, task: Task, implementation: Callable[..., Any]) -> None:
        self.task, self.implementation = task, implementation
        torch.manual_seed(0)
        pristine, *self.others = task.inputs()
        self.restored = [(pristine.clone(), pristine)]
        self.first = self.restored[0][0]
        self.upstream: list[Tensor] = []
        for out in self._outputs(self._leaf()):
            values = torch.ones(out.shape) if task.is_loss else torch.randn(out.shape, device=out.device)
            gradient = torch.empty_like(out).copy_(values)  # in the layout of the output
            self.restored.append((gradient.clone(), gradient))
            self.upstream.append(self.restored[-1][0])

    def restore(self) -> None:
        """Input and upstream gradients as they were: some implementations write over them."""
        for used, pristine in self.restored:
            used.copy_(pristine)

    def forward(self) -> tuple[Tensor, ...]:
        return self._outputs(self._leaf())

    def forward_backward(self) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Outputs, and the gradients of the first input and of the weights, which end in ``main_grad``."""
        leaf = self._leaf()
        outputs = self._outputs(leaf)
        gradients = torch.autograd.grad(outputs, [leaf, *self.task.parameters], self.upstream)
        weights = [
            _as_the_hook_of_ddp(*both) for both in zip(self.task.parameters, gradients[1:], strict=True)
        ]
        return outputs, [gradients[0], *weights]

    def sample(self) -> list[Tensor]:
        """The beginning of every result of one run, fp32 on the host."""
        for parameter in self.task.parameters:
            if hasattr(parameter, "main_grad"):
                parameter.main_grad.zero_()
        self.restore()
        outputs, gradients = self.forward_backward()
        losses = [torch.stack([out.float().sum() for out in outputs])] if self.task.is_loss else outputs
        results = (t.detach().flatten()[:COMPARED] for t in (*losses, *gradients))
        return [t.to("cpu", torch.float32, copy=True) for t in results]

    def _leaf(self) -> Tensor:
        # A fresh leaf on the same memory: some implementations overwrite their input.
        return self.first.detach().requires_grad_()

    def _outputs(self, leaf: Tensor) -> tuple[Tensor, ...]:
        out = self.implementation(leaf, *self.others)
        return out if isinstance(out, tuple) else (out,)


def _as_the_hook_of_ddp(parameter: Any, gradient: Tensor) -> Tensor:
    """Megatron-Core's DDP adds every gradient to ``main_grad`` that was not added on the way."""
    if not hasattr(parameter, "main_grad"):
        return gradient
    if not parameter.grad_added_to_main_grad:
        parameter.main_grad.add_(gradient)
    parameter.grad_added_to_main_grad = False
    total: Tensor = parameter.main_grad
    return total


def largest_difference(results: list[Tensor], reference: list[Tensor]) -> float:
    """Largest relative difference in 2-norm; NaN where a result is."""
    pairs = zip(results, reference, strict=True)
    return float(torch.stack([(ours - theirs).norm() / theirs.norm() for ours, theirs in pairs]).max())


def measure(
    task: Task, name: str, device: torch.device, limits: Limits, copy: float, reference: list[Tensor] | None
) -> dict[str, Any]:
    """Milliseconds forward + backward and forward, share of copy bandwidth, peak extra memory.

    Args:
        copy: bytes per second of a copy, read and written counted.
        reference: ``Bench.sample`` of eager torch; None: not compared.
    Raises:
        ValueError: the results are not those of eager torch.
    """
    # Compiled functions forget the shapes before, or they would be compiled for any shape.
    torch.compiler.reset()
    bench = Bench(task, task.implementations[name])
    difference = None
    if reference is not None:
        difference = largest_difference(bench.sample(), reference)
        if not difference <= LARGEST_DIFFERENCE:
            raise ValueError(f"results differ from those of eager torch by {difference:.2g} of their norm")
    both = time_of(bench.forward_backward, device, limits, prepare=bench.restore)
    row = {
        "forward_backward_ms": round(both.milliseconds, 4),
        "host_bound": both.host_bound,
        "difference_from_eager": None if difference is None else float(f"{difference:.2g}"),
        "peak_extra_bytes": peak_extra_bytes(bench.forward_backward, device, prepare=bench.restore),
    }
    if task.forward_bytes:
        forward = time_of(bench.forward, device, limits, prepare=bench.restore)
        moved = task.forward_bytes + task.backward_bytes
        row["forward_ms"] = round(forward.milliseconds, 4)
        row["forward_share_of_copy"] = round(task.forward_bytes / (forward.milliseconds / 1000) / copy, 3)
        row["share_of_copy"] = round(moved / (both.milliseconds / 1000) / copy, 3)
    return row
