"""The output layer and the loss together, a chunk of tokens at a time, so the logits never exist as a whole.

For each chunk of c tokens (T = S * B tokens in all, H hidden size, V/tp vocabulary of this rank)::

    logits [c, V/tp]   = x [c, H] . weight^T          one buffer, reused by every chunk
    loss   [c]         = as in cross_entropy.py       one all-gather of 12 bytes per token and rank
    logits            <- gradient of the logits        in place
    grad_x [c, H]      = logits . weight
    grad_weight       += logits^T . x                  into the fp32 main_grad if the weight has one

Everything happens in the forward pass, because that is where the chunk's logits are: three matrix products,
as without chunks, and nothing is computed twice. The price is that the weight of each token in the final
loss must be known there (``token_weights``), and backward refuses a gradient that differs from it.

Memory: c * V/tp logits instead of T * V/tp. Each further chunk reads and writes grad_weight once more, so
take few large chunks: at V = 256,000 and H = 2048 that costs 1.4 ms per chunk on an H100 [calculated].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._rows import arithmetic_dtype
from .cross_entropy import (
    classify_labels,
    combine_statistics,
    local_statistics,
    token_loss,
    vocabulary_shard,
    write_gradient,
)
from .weight_gradient import accumulate_weight_gradient, gradient_already_added, main_grad_of


def _gathered(hidden: Tensor, tp_group: dist.ProcessGroup) -> Tensor:
    """The whole sequence [S, B, H] from this rank's part [S/tp, B, H]."""
    whole = hidden.new_empty(hidden.shape[0] * tp_group.size(), *hidden.shape[1:])
    dist.all_gather_into_tensor(whole, hidden.contiguous(), group=tp_group)
    return whole


def _summed(grad_hidden: Tensor, tp_group: dist.ProcessGroup, sequence_parallel: bool) -> Tensor:
    """Sum over the ranks' parts of the vocabulary; under sequence parallelism only this rank's tokens."""
    if not sequence_parallel:
        dist.all_reduce(grad_hidden, group=tp_group)
        return grad_hidden
    part = grad_hidden.new_empty(grad_hidden.shape[0] // tp_group.size(), *grad_hidden.shape[1:])
    dist.reduce_scatter_tensor(part, grad_hidden, group=tp_group)
    return part


class _ChunkedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        token_weights: Tensor,
        tp_group: dist.ProcessGroup | None,
        sequence_parallel: bool,
        z_loss: float,
        ignore_index: int,
        chunk_tokens: int,
        with_gradient: bool,
    ) -> Tensor:
        shared = tp_group if tp_group is not None and tp_group.size() > 1 else None
        whole = _gathered(hidden, shared) if shared is not None and sequence_parallel else hidden
        x_TH = whole.reshape(-1, whole.shape[-1])
        labels_T = labels.reshape(-1).contiguous()
        dtype = arithmetic_dtype(hidden.dtype)
        weights_T = token_weights.reshape(-1).to(dtype)
        vocab_start, vocab_size = vocabulary_shard(weight.shape[0], shared)
        ignored, outside = classify_labels(labels_T, vocab_size, ignore_index)
        weights_T = weights_T.masked_fill(ignored, 0.0).contiguous()
        loss_T = torch.empty(labels_T.shape, dtype=dtype, device=x_TH.device)
        logits = x_TH.new_empty(min(chunk_tokens, x_TH.shape[0]), weight.shape[0])
        grad_x_TH = torch.empty_like(x_TH) if with_gradient else None
        main_grad = accumulator = None
        if with_gradient and ctx.needs_input_grad[1]:
            main_grad = accumulator = main_grad_of(weight)
            if accumulator is None:
                accumulator = torch.zeros_like(weight, dtype=arithmetic_dtype(weight.dtype))
        for start in range(0, x_TH.shape[0], chunk_tokens):
            rows = slice(start, min(start + chunk_tokens, x_TH.shape[0]))
            x = x_TH[rows]
            chunk = torch.mm(x, weight.t(), out=logits[: x.shape[0]])
            statistics = local_statistics(chunk, labels_T[rows], vocab_start)
            lse, label_logit = combine_statistics(statistics, shared)
            loss_T[rows] = token_loss(lse, label_logit, ignored[rows], outside[rows], z_loss)
            if grad_x_TH is None:
                continue
            write_gradient(chunk, labels_T[rows], lse, weights_T[rows], vocab_start, z_loss)
            torch.mm(chunk, weight, out=grad_x_TH[rows])
            if accumulator is not None:
                accumulate_weight_gradient(accumulator, chunk, x)
        if grad_x_TH is not None:
            del logits
            grad_hidden = grad_x_TH.view(whole.shape)
            if shared is not None:
                grad_hidden = _summed(grad_hidden, shared, sequence_parallel)
            ctx.save_for_backward(grad_hidden, weights_T, ignored)
            ctx.weight, ctx.consumed = weight, False
            ctx.main_grad, ctx.accumulator = main_grad, accumulator
        return loss_T.view(labels.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.consumed:
            raise RuntimeError(
                "chunked_linear_cross_entropy: a second backward pass; the gradient was added during the "
                "forward pass and can be handed out once"
            )
        ctx.consumed = True
        grad_hidden, weights_T, ignored = ctx.saved_tensors
        given_T = grad.reshape(-1).masked_fill(ignored, 0.0)
        grad_hidden = _require_same(given_T, weights_T, grad_hidden)
        grad_weight = None
        if ctx.main_grad is not None:
            grad_weight = gradient_already_added(ctx.weight)
        elif ctx.accumulator is not None:
            grad_weight = ctx.accumulator.to(ctx.weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None, None, None, None, None


def _require_same(given_T: Tensor, weights_T: Tensor, grad_hidden: Tensor) -> Tensor:
    """Refuses an upstream gradient other than the weights used in forward; NaN where raising would wait."""
    same = (given_T == weights_T).all()
    if given_T.device.type != "cpu":
        return grad_hidden.masked_fill(~same, float("nan"))
    if not bool(same):
        token = int((given_T != weights_T).nonzero()[0])
        raise RuntimeError(
            f"chunked_linear_cross_entropy: token {token} has weight {float(weights_T[token])} in "
            f"token_weights, but the loss handed back {float(given_T[token])}; pass the weights of the final "
            "sum, loss scale included, as token_weights"
        )
    return grad_hidden


def chunked_linear_cross_entropy(
    hidden_SBH: Tensor,
    weight_VH: Tensor,
    labels_SB: Tensor,
    *,
    token_weights: Tensor | None = None,
    tp_group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
    z_loss: float = 0.0,
    ignore_index: int = -100,
    chunk_tokens: int = 2048,
) -> Tensor:
    """Per-token cross-entropy of ``hidden . weight^T`` without ever holding all logits.

    Call it in the output layer's own ``forward``, so that hooks on that module (overlapped gathering of
    parameters) still fire. The weight's gradient is added during this call, to ``weight.main_grad`` when
    Megatron-Core's DDP has given it one; backward sets ``grad_added_to_main_grad``. Under ``torch.no_grad``
    only the loss is computed.

    Args:
        hidden_SBH: [S, B, H], or [S / tp, B, H] with ``sequence_parallel``.
        weight_VH: [V / tp, H], same dtype; rank r holds ids r * V/tp to (r + 1) * V/tp - 1.
        labels_SB: [S, B], int64, ids of the whole vocabulary, the whole sequence on every rank.
        token_weights: [S, B], factor of each token in the final loss, loss scale included; default 1.
            Backward accepts no other gradient.
        tp_group: ranks that share the vocabulary; None: this rank holds all of it.
        sequence_parallel: the sequence is split over ``tp_group``.
        z_loss: factor of the squared log-partition (PaLM, section 5), 0 for none.
        ignore_index: tokens with this label have loss 0 and gradient 0.
        chunk_tokens: tokens whose logits exist at a time.
    Returns:
        [S, B] fp32, equal on all ranks of the group, before ``token_weights``.
    Raises:
        ValueError: shapes or dtypes disagree, or (on the CPU) a label lies outside the vocabulary.
        RuntimeError: in backward, when it runs twice, or the gradient is not ``token_weights`` (on the CPU;
            elsewhere the gradients become NaN, because raising would wait for the device).
    """
    parts = tp_group.size() if tp_group is not None and sequence_parallel else 1
    expected = (hidden_SBH.shape[0] * parts, *hidden_SBH.shape[1:-1])
    if labels_SB.shape != expected or hidden_SBH.shape[-1] != weight_VH.shape[-1]:
        raise ValueError(
            f"chunked_linear_cross_entropy: hidden {tuple(hidden_SBH.shape)}, weight {tuple(weight_VH.shape)} and "
            f"labels {tuple(labels_SB.shape)} disagree; expected labels {expected} and equal hidden sizes"
        )
    if hidden_SBH.dtype != weight_VH.dtype:
        raise ValueError(
            f"chunked_linear_cross_entropy: hidden is {hidden_SBH.dtype}, weight is {weight_VH.dtype}"
        )
    if chunk_tokens < 1:
        raise ValueError(f"chunked_linear_cross_entropy: chunk_tokens = {chunk_tokens} must be at least 1")
    if token_weights is None:
        token_weights = torch.ones_like(labels_SB, dtype=torch.float32)
    elif token_weights.shape != labels_SB.shape:
        raise ValueError(
            f"chunked_linear_cross_entropy: token_weights is {tuple(token_weights.shape)}, "
            f"labels are {tuple(labels_SB.shape)}"
        )
    apply: Any = _ChunkedLinearCrossEntropy.apply
    out: Tensor = apply(
        hidden_SBH,
        weight_VH,
        labels_SB,
        token_weights,
        tp_group,
        sequence_parallel,
        z_loss,
        ignore_index,
        chunk_tokens,
        torch.is_grad_enabled() and (hidden_SBH.requires_grad or weight_VH.requires_grad),
    )
    return out
