"""Adds a weight gradient to a fp32 accumulator without a temporary of the weight's size.

    accumulator[out, in] += sum_t grad[t, out] * x[t, in]

The usual way rounds the product to bf16, stores it and adds it in a second pass: 10 bytes per weight and
micro-batch. Here the matrix product adds into fp32 itself: 8 bytes, and one rounding less.

Megatron-Core's DDP gives every parameter a fp32 ``main_grad``. Its hook adds ``.grad`` to it unless
``grad_added_to_main_grad`` is set, so an operation that adds by itself sets that flag.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._rows import row_blocks


def accumulate_weight_gradient(accumulator: Tensor, grad: Tensor, x: Tensor) -> None:
    """``accumulator += grad^T x``, in place.

    Args:
        accumulator: [out, in], fp32, or the dtype of ``grad`` and ``x``.
        grad: [tokens, out], gradient of the layer's output.
        x: [tokens, in], the layer's input, same dtype as ``grad``.
    """
    if accumulator.dtype == grad.dtype:
        accumulator.addmm_(grad.t(), x)
    elif grad.is_cuda:
        torch.addmm(accumulator, grad.t(), x, out_dtype=accumulator.dtype, out=accumulator)
    else:
        # No mixed-precision product on the CPU: widen a few rows of the weight at a time.
        wide = x.to(accumulator.dtype)
        for rows in row_blocks(grad.shape[1], grad.shape[0], grad.device):
            accumulator[rows].addmm_(grad[:, rows].t().to(accumulator.dtype), wide)


def main_grad_of(weight: Tensor) -> Tensor | None:
    """The fp32 accumulator that Megatron-Core's DDP gave the parameter, if any."""
    main_grad: Tensor | None = getattr(weight, "main_grad", None)
    return main_grad


def gradient_already_added(weight: Tensor) -> Tensor:
    """Tells Megatron-Core that ``main_grad`` is complete, and returns what backward must hand out.

    With overlapped gradient reduction its hook insists on a ``.grad``, which it drops unread. That is the weight's
    own memory: a tensor of its size would be 1 GB for 256,000 x 2,048 in bf16, when memory is fullest.
    """
    weight.grad_added_to_main_grad = True  # type: ignore[attr-defined]
    return weight.detach()


def products_sum_in_fp32(device: torch.device) -> bool:
    """Whether :func:`accumulate_weight_gradient` can add bf16 products to an fp32 accumulator on this device."""
    accumulator = torch.zeros(16, 16, device=device)
    factor = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
    try:
        accumulate_weight_gradient(accumulator, factor, factor)
    except (RuntimeError, TypeError):  # a torch whose addmm has no out_dtype, or refuses an fp32 input
        return False
    return bool((accumulator == 16).all())
