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
        ctx.save_for_backward(x, weight)
        # The parameter itself: what save_for_backward returns may be another Python object.
        ctx.weight, ctx.sum_over, ctx.sequence_parallel = weight, sum_over, sequence_parallel
        return torch.matmul(_whole(x, sum_over) if sequence_parallel else x, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        group: dist.ProcessGroup | None = ctx.sum_over
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        if needs_weight and ctx.sequence_parallel:
            whole, gathering = _gathering(x, group)  # overlaps with the product for x
        else:
            whole, gathering = x, None
        part, summing = _input_gradient(ctx, grad, weight, x) if needs_x else (None, None)
        grad_weight = None
        if needs_weight:
            if gathering is not None:
                gathering.wait()
            grad_weight = _weight_gradient(ctx.weight, grad.flatten(0, -2), whole.flatten(0, -2))
        if summing is not None:
            summing.wait()
        return part, grad_weight, None, None


def _input_gradient(ctx: Any, grad: Tensor, weight: Tensor, x: Tensor) -> tuple[Tensor, Any]:
    """The input's gradient, complete once the work that is returned with it (if any) is done."""
    group: dist.ProcessGroup | None = ctx.sum_over
    grad_x = grad.matmul(weight)
    if group is None:
        return grad_x, None
    if not ctx.sequence_parallel:
        return grad_x, dist.all_reduce(grad_x, group=group, async_op=True)
    part = torch.empty_like(x)
    return part, dist.reduce_scatter_tensor(part, grad_x, group=group, async_op=True)


def _gathering(x: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Any]:
    """The whole sequence [s, b, h] from this rank's part of it, complete once the work beside it is done."""
    assert group is not None
    whole = x.new_empty(x.shape[0] * group.size(), *x.shape[1:])
    return whole, dist.all_gather_into_tensor(whole, x.contiguous(), group=group, async_op=True)


def _whole(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    whole, gathering = _gathering(x, group)
    gathering.wait()
    return whole


def _weight_gradient(weight: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    main_grad = main_grad_of(weight)
    if main_grad is None:
        return grad.t().matmul(x)
    accumulate_weight_gradient(main_grad, grad, x)
    return gradient_already_added(weight)


def fused_gradient_linear(
    x: Tensor, weight: Tensor, *, sum_over: dist.ProcessGroup | None, sequence_parallel: bool
) -> Tensor:
    """``x w^T``, whose backward adds the weight's gradient to its ``main_grad`` if it has one.

    Args:
        x: [s, b, in], or this rank's part of the sequence [s / tp, b, in] under sequence parallelism.
        weight: [out, in], same dtype.
        sum_over: the ranks whose parts of the input's gradient are to be summed; None where they are not.
        sequence_parallel: gather the sequence over these ranks first.
    Returns:
        [s, b, out].
    """
    apply: Any = _Linear.apply
    out: Tensor = apply(x, weight, sum_over, sequence_parallel)
    return out


def _forward_impl(
    x: Tensor,
    weight: Tensor,
    allreduce_dgrad: bool,
    sequence_parallel: bool,
    tp_group: dist.ProcessGroup | None,
) -> Tensor:
    sum_over = tp_group if allreduce_dgrad or sequence_parallel else None
    return fused_gradient_linear(x, weight, sum_over=sum_over, sequence_parallel=sequence_parallel)


class FusedGradientColumnLinear(ColumnParallelLinear):
    """Splits the output features over the tensor-parallel ranks."""

    def _forward_impl(self, input: Tensor, weight: Tensor, *_: Any, **how: Any) -> Tensor:
        return _forward_impl(input, weight, how["allreduce_dgrad"], how["sequence_parallel"], how["tp_group"])


class FusedGradientRowLinear(RowParallelLinear):
    """Splits the input features over the tensor-parallel ranks; its input's gradient needs no sum."""

    def _forward_impl(self, input: Tensor, weight: Tensor, *_: Any, **how: Any) -> Tensor:
        return _forward_impl(input, weight, how["allreduce_dgrad"], how["sequence_parallel"], how["tp_group"])


class FusedGradientEmbedding(VocabParallelEmbedding):
    """Token embedding without a dense gradient of the size of the vocabulary."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids [b, s] -> [b, s, h], or this rank's part of [s, b, h] under sequence parallelism."""
        rows = embedding(ids, self.weight, vocab_start=self.vocab_start_index)
        if self.reduce_scatter_embeddings:
            rows = rows.transpose(0, 1).contiguous()
            return reduce_scatter_to_sequence_parallel_region(rows, group=self.tp_group)  # type: ignore[no-any-return]
        return reduce_from_tensor_model_parallel_region(rows, group=self.tp_group)  # type: ignore[no-any-return]
