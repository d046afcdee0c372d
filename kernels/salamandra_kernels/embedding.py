"""Embedding look-up whose gradient goes straight into main_grad, without a dense buffer of the weight's size.

    out[t, :] = weight[ids[t] - vocab_start, :]      0 where the id belongs to another rank
    main_grad[ids[t] - vocab_start, :] += grad[t, :]     only the rows that occur

The usual backward zeroes a tensor [V/tp, H], adds the tokens' rows and then adds all of it to main_grad:
2 + 10 bytes per weight for each micro-batch, 6.3 GB at V = 256,000 and H = 2048. Here it is 14 bytes per
element of the gradient. The order of summation is fixed (sorted on CUDA), so a run can be repeated to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._rows import arithmetic_dtype
from .weight_gradient import gradient_already_added, main_grad_of


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, vocab_start: int) -> Tensor:
        local = ids.reshape(-1) - vocab_start
        owned = (local >= 0) & (local < weight.shape[0])
        # Ids of other ranks are spread over all rows: backward adds zeros there, and CUDA adds to one row serially.
        row = local.remainder(weight.shape[0])
        out = weight[row].masked_fill_(~owned.unsqueeze(1), 0.0)
        ctx.save_for_backward(row, owned)
        ctx.weight = weight
        return out.view(*ids.shape, weight.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        row, owned = ctx.saved_tensors
        weight: Tensor = ctx.weight
        main_grad = main_grad_of(weight)
        target = main_grad
        if target is None:
            target = torch.zeros_like(weight, dtype=arithmetic_dtype(weight.dtype))
        rows = grad.reshape(-1, grad.shape[-1]).to(target.dtype).masked_fill(~owned.unsqueeze(1), 0.0)
        if target.is_cuda:
            target.index_put_((row,), rows, accumulate=True)  # sorts; index_add_ would race there
        else:
            target.index_add_(0, row, rows)
        if main_grad is not None:
            return gradient_already_added(weight), None, None
        return target.to(weight.dtype), None, None


def embedding(ids: Tensor, weight: Tensor, *, vocab_start: int = 0) -> Tensor:
    """Rows of ``weight``; ids that this rank does not hold give zeros, to be summed over the ranks.

    Args:
        ids: [..], int64, ids of the whole vocabulary.
        weight: [V / tp, H]. If Megatron-Core's DDP has given it a ``main_grad``, backward adds to that and
            sets ``grad_added_to_main_grad``.
        vocab_start: first id that ``weight`` holds.
    Returns:
        [.., H], dtype of the weight.
    """
    apply: Any = _Embedding.apply
    out: Tensor = apply(weight, ids, vocab_start)
    return out
