"""Linear layers and embedding whose weight gradients go straight into Megatron-Core's fp32 ``main_grad``.

Megatron-Core does this only through apex's CUDA extension. Its classes choose the autograd function in
``_forward_impl``, so a subclass brings ours; parameters, checkpoint keys and communication stay the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor
from torch.autograd.function import once_differentiable

from salamandra_kernels import (
    accumulate_weight_gradient,
    embedding,
    gradient_already_added,
    main_grad_of,
)


class _Linear(torch.autograd.Function):
    """``x w^T``; backward overlaps the communication of the input's gradient with the weight's product."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, sum_over: dist.ProcessGroup | None, sequence_parallel: bool
    ) -> Tensor:
        """``sum_over``: the ranks whose parts of the input's gradient are to be summed; None where they are not."""
        ctx.save_for_backward(x, weight)
        # The parameter itself: what save_for_backward returns may be another Python object.
        ctx.weight, ctx.sum_over, ctx.sequence_parallel = weight, sum_over, sequence_parallel
        return torch.matmul(_whole(x, sum_over) if sequence_parallel else x, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        group: dist.ProcessGroup | None = ctx.sum_over
        whole = _whole(x, group) if ctx.sequence_parallel else x
        grad_x = grad.matmul(weight)
        work = None
        if group is not None and ctx.sequence_parallel:
            part = torch.empty_like(x)
            work = dist.reduce_scatter_tensor(part, grad_x, group=group, async_op=True)
        elif group is not None:
            part = grad_x
            work = dist.all_reduce(part, group=group, async_op=True)
        else:
            part = grad_x
        grad_weight = _weight_gradient(ctx.weight, grad.reshape(-1, grad.shape[-1]), whole.flatten(0, -2))
        if work is not None:
            work.wait()
        return part, grad_weight, None, None


def _whole(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The whole sequence [s, b, h] from this rank's part of it."""
    assert group is not None
    whole = x.new_empty(x.shape[0] * group.size(), *x.shape[1:])
    dist.all_gather_into_tensor(whole, x.contiguous(), group=group)
    return whole


def _weight_gradient(weight: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    main_grad = main_grad_of(weight)
    if main_grad is None:
        return grad.t().matmul(x)
    accumulate_weight_gradient(main_grad, grad, x)
    return gradient_already_added(weight)


def _forward(
    x: Tensor,
    weight: Tensor,
    allreduce_dgrad: bool,
    sequence_parallel: bool,
    tp_group: dist.ProcessGroup | None,
) -> Tensor:
    apply: Any = _Linear.apply
    out: Tensor = apply(
        x, weight, tp_group if allreduce_dgrad or sequence_parallel else None, sequence_parallel
    )
    return out


class FusedGradientColumnLinear(ColumnParallelLinear):
    """Splits the output features over the tensor-parallel ranks."""

    def _forward_impl(self, input: Tensor, weight: Tensor, *_: Any, **how: Any) -> Tensor:
        return _forward(input, weight, how["allreduce_dgrad"], how["sequence_parallel"], how["tp_group"])


class FusedGradientRowLinear(RowParallelLinear):
    """Splits the input features over the tensor-parallel ranks; its input's gradient needs no sum."""

    def _forward_impl(self, input: Tensor, weight: Tensor, *_: Any, **how: Any) -> Tensor:
        return _forward(input, weight, how["allreduce_dgrad"], how["sequence_parallel"], how["tp_group"])


class FusedGradientEmbedding(VocabParallelEmbedding):
    """Token embedding without a dense gradient of the size of the vocabulary."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids [b, s] -> [b, s, h], or this rank's part of [s, b, h] under sequence parallelism."""
        rows = embedding(ids, self.weight, vocab_start=self.vocab_start_index)
        if self.reduce_scatter_embeddings:
            rows = rows.transpose(0, 1).contiguous()
            return reduce_scatter_to_sequence_parallel_region(rows, group=self.tp_group)  # type: ignore[no-any-return]
        return reduce_from_tensor_model_parallel_region(rows, group=self.tp_group)  # type: ignore[no-any-return]
