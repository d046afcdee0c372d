"""Cross-entropy over a vocabulary of 256,000 classes, sharded by tensor parallelism.

Each of the tp ranks holds the logits of its part of the vocabulary, [S, B, V/tp]::

    forward   one read:  per token  m = max, d = sum exp(x - m), x_y = logit of the label (0 if elsewhere)
              one all-gather of (m, d, x_y), 12 bytes per token and rank
              lse = log sum exp over the whole vocabulary,  loss = lse - x_y + z * lse^2
    backward  one read and one write over the logits:
              x <- (exp(x - lse) * (1 + 2 z lse) - [x is the label's]) * grad

Saved: the logits (no copy) and lse. The label's 1 is subtracted in fp32 before rounding: rounding the
probability to bf16 first would lose 18 % of the true class's gradient at p = 0.99, and all of it at 0.999.

Traffic in bf16: 2 bytes per logit forward, 4 backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from ._backend import ceil_div, interpreting, jit, launch_on, tl, use_triton
from ._rows import arithmetic_dtype, row_blocks


def _statistics_reference(logits_TV: Tensor, labels_T: Tensor, vocab_start: int) -> Tensor:
    tokens, width = logits_TV.shape
    dtype = arithmetic_dtype(logits_TV.dtype)
    statistics = torch.empty(3, tokens, dtype=dtype, device=logits_TV.device)
    local = labels_T - vocab_start
    owned = (local >= 0) & (local < width)
    column = local.clamp(0, width - 1).unsqueeze(1)
    for rows in row_blocks(tokens, width, logits_TV.device):
        block = logits_TV[rows]
        maximum = block.amax(-1, keepdim=True).to(dtype)
        statistics[0, rows] = maximum.squeeze(1)
        statistics[1, rows] = block.to(dtype, copy=True).sub_(maximum).exp_().sum(-1)
        label_logit = block.gather(1, column[rows]).squeeze(1).to(dtype)
        statistics[2, rows] = torch.where(owned[rows], label_logit, 0.0)
    return statistics


def _gradient_reference(
    logits_TV: Tensor, labels_T: Tensor, lse_T: Tensor, grad_T: Tensor, vocab_start: int, z_loss: float
) -> None:
    tokens, width = logits_TV.shape
    dtype = arithmetic_dtype(logits_TV.dtype)
    local = labels_T - vocab_start
    # A row whose label lives on another rank subtracts 0 from its first column.
    subtract = torch.where((local >= 0) & (local < width), -grad_T, 0.0).unsqueeze(1)
    column = local.clamp(0, width - 1).unsqueeze(1)
    factor = (grad_T * (1 + 2 * z_loss * lse_T)).unsqueeze(1)
    for rows in row_blocks(tokens, width, logits_TV.device):
        block = logits_TV[rows]
        lse = lse_T[rows].unsqueeze(1)
        wide = block.to(dtype)  # the block itself when it has that type already
        wide.sub_(lse).exp_().mul_(factor[rows]).scatter_add_(1, column[rows], subtract[rows])
        if wide is not block:
            block.copy_(wide)


@jit
def _statistics_kernel(  # type: ignore[no-untyped-def]
    logits,
    labels,
    statistics,
    tokens,
    vocab_start,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row. Every lane keeps its own maximum and sum, so the loop has no reduction."""
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * WIDTH
    lane = tl.arange(0, BLOCK)
    # A finite start: the difference of two infinities would be NaN.
    maximum = tl.full([BLOCK], -3.0e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, WIDTH, BLOCK):
        column = start + lane
        x = tl.load(row + column, mask=column < WIDTH, other=float("-inf")).to(tl.float32)
        # One exponential for both cases: a new maximum shrinks the sum, any other logit joins it shrunk. Of the
        # difference, because a GPU's minimum and maximum leave out NaN, and a NaN must reach the loss.
        shrink = tl.exp(-tl.abs(x - maximum))
        total = tl.where(x > maximum, total * shrink + 1.0, total + shrink)
        maximum = tl.maximum(x, maximum)
    row_maximum = tl.max(maximum, axis=0)
    row_total = tl.sum(total * tl.exp(maximum - row_maximum), axis=0)
    local = tl.load(labels + token) - vocab_start
    owned = (local >= 0) & (local < WIDTH)
    label_logit = tl.load(row + tl.where(owned, local, 0), mask=owned, other=0.0).to(tl.float32)
    tl.store(statistics + token, row_maximum)
    tl.store(statistics + tokens + token, row_total)
    tl.store(statistics + 2 * tokens + token, label_logit)


@jit
def _gradient_kernel(  # type: ignore[no-untyped-def]
    logits,
    labels,
    lse,
    grad,
    vocab_start,
    z_loss,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS_PER_PROGRAM: tl.constexpr,
):
    """One program: BLOCKS_PER_PROGRAM * BLOCK columns of one row, each read once and written once."""
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * WIDTH
    local = tl.load(labels + token) - vocab_start
    log_sum = tl.load(lse + token)
    outer = tl.load(grad + token)
    factor = outer * (1.0 + 2.0 * z_loss * log_sum)
    lane = tl.arange(0, BLOCK)
    first = tl.program_id(1) * (BLOCKS_PER_PROGRAM * BLOCK)
    for block in range(BLOCKS_PER_PROGRAM):
        column = first + block * BLOCK + lane
        mask = column < WIDTH
        x = tl.load(row + column, mask=mask, other=0.0).to(tl.float32)
        slope = tl.exp(x - log_sum) * factor - tl.where(column == local, outer, 0.0)
        tl.store(row + column, slope.to(logits.dtype.element_ty), mask=mask)


# 256 threads with one 16-byte access each; 256,000 columns are 125 such blocks.
BLOCK = 2048
BLOCKS_PER_PROGRAM = 8
INTERPRETER_BLOCK = 65536


def local_statistics(logits_TV: Tensor, labels_T: Tensor, vocab_start: int) -> Tensor:
    """One pass over the local logits: [3, T] of maximum, sum of exponentials and label's logit."""
    if not use_triton(logits_TV):
        return _statistics_reference(logits_TV, labels_T, vocab_start)
    tokens, width = logits_TV.shape
    statistics = torch.empty(3, tokens, dtype=torch.float32, device=logits_TV.device)
    with launch_on(logits_TV):
        _statistics_kernel[(tokens,)](
            logits_TV, labels_T, statistics, tokens, vocab_start,
            WIDTH=width, BLOCK=INTERPRETER_BLOCK if interpreting() else BLOCK, num_warps=8,
        )  # fmt: skip
    return statistics


def write_gradient(
    logits_TV: Tensor, labels_T: Tensor, lse_T: Tensor, grad_T: Tensor, vocab_start: int, z_loss: float
) -> None:
    """Writes the gradient over ``logits_TV``. ``grad_T`` is 0 for ignored tokens."""
    if not use_triton(logits_TV):
        _gradient_reference(logits_TV, labels_T, lse_T, grad_T, vocab_start, z_loss)
        return
    tokens, width = logits_TV.shape
    block = INTERPRETER_BLOCK if interpreting() else BLOCK
    programs = (tokens, ceil_div(width, BLOCKS_PER_PROGRAM * block))
    with launch_on(logits_TV):
        _gradient_kernel[programs](
            logits_TV, labels_T, lse_T, grad_T, vocab_start, z_loss,
            WIDTH=width, BLOCK=block, BLOCKS_PER_PROGRAM=BLOCKS_PER_PROGRAM, num_warps=8,
        )  # fmt: skip
    increment_version(logits_TV)


def vocabulary_shard(width: int, tp_group: dist.ProcessGroup | None) -> tuple[int, int]:
    """First id held by this rank, and the size of the whole vocabulary."""
    if tp_group is None:
        return 0, width
    return width * tp_group.rank(), width * tp_group.size()


def combine_statistics(statistics: Tensor, tp_group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """Whole-vocabulary (lse [T], label's logit [T]) from each rank's [3, T]."""
    if tp_group is None or tp_group.size() == 1:
        return statistics[1].log() + statistics[0], statistics[2]
    gathered = statistics.new_empty(tp_group.size(), *statistics.shape)
    dist.all_gather_into_tensor(gathered.view(-1, statistics.shape[-1]), statistics, group=tp_group)
    maximum = gathered[:, 0].amax(0)
    total = (gathered[:, 1] * (gathered[:, 0] - maximum).exp()).sum(0)
    return total.log() + maximum, gathered[:, 2].sum(0)


def classify_labels(labels_T: Tensor, vocab_size: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Masks of the ignored labels and of those outside the vocabulary; the latter raise on the CPU.

    On other devices raising would wait for the device; ``token_loss`` makes them NaN there, which stops
    the run at the next look at the loss.
    """
    ignored = labels_T == ignore_index
    outside = ~ignored & ((labels_T < 0) | (labels_T >= vocab_size))
    if labels_T.device.type == "cpu" and bool(outside.any()):
        raise ValueError(
            f"cross-entropy: label {int(labels_T[outside][0])} is outside the vocabulary "
            f"of {vocab_size} and is not ignore_index = {ignore_index}"
        )
    return ignored, outside


def token_loss(
    lse_T: Tensor, label_logit_T: Tensor, ignored: Tensor, outside: Tensor, z_loss: float
) -> Tensor:
    """Loss per token; 0 where ignored, NaN where the label is outside the vocabulary."""
    loss = lse_T - label_logit_T
    if z_loss:
        loss = loss + z_loss * lse_T.square()
    return loss.masked_fill(ignored, 0.0).masked_fill(outside, float("nan"))


class _VocabParallelCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        tp_group: dist.ProcessGroup | None,
        z_loss: float,
        ignore_index: int,
    ) -> Tensor:
        width = logits.shape[-1]
        vocab_start, vocab_size = vocabulary_shard(width, tp_group)
        labels_T = labels.reshape(-1).contiguous()
        ignored, outside = classify_labels(labels_T, vocab_size, ignore_index)
        statistics = local_statistics(logits.view(-1, width), labels_T, vocab_start)
        lse, label_logit = combine_statistics(statistics, tp_group)
        ctx.save_for_backward(logits, labels_T, lse, ignored)
        ctx.vocab_start, ctx.z_loss, ctx.consumed = vocab_start, z_loss, False
        return token_loss(lse, label_logit, ignored, outside, z_loss).view(labels.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.consumed:
            raise RuntimeError(
                "vocab_parallel_cross_entropy: a second backward pass, but the first one wrote the gradient "
                "over the logits; compute the loss again, or add the losses before the backward pass"
            )
        logits, labels_T, lse, ignored = ctx.saved_tensors
        ctx.consumed = True
        grad_T = grad.reshape(-1).to(lse.dtype).masked_fill(ignored, 0.0).contiguous()
        buffer = logits.detach()
        write_gradient(buffer.view(-1, logits.shape[-1]), labels_T, lse, grad_T, ctx.vocab_start, ctx.z_loss)
        return buffer, None, None, None, None


def vocab_parallel_cross_entropy(
    logits_SBV: Tensor,
    labels_SB: Tensor,
    *,
    tp_group: dist.ProcessGroup | None = None,
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """Per-token cross-entropy over a vocabulary sharded by tensor parallelism.

    The gradient is written over ``logits_SBV``, so the logits must not be used after the backward pass, and
    backward can run once. Arithmetic is fp32 whatever the input dtype (fp64 for fp64). Weights per token are
    the gradient's: multiply the result.

    Args:
        logits_SBV: [.., vocabulary / tp], bf16, fp16 or fp32, contiguous; rank r of the group holds
            ids r * V/tp to (r + 1) * V/tp - 1.
        labels_SB: [..], int64, ids of the whole vocabulary, same on all ranks of the group.
        tp_group: ranks that share the vocabulary; None: this rank holds all of it.
        z_loss: factor of the squared log-partition (PaLM, section 5), 0 for none.
        ignore_index: tokens with this label have loss 0 and gradient 0.
    Returns:
        Same shape as the labels, fp32, equal on all ranks of the group.
    Raises:
        ValueError: shapes disagree, logits are not contiguous, or (on the CPU; NaN loss on other devices)
            a label lies outside the vocabulary.
        RuntimeError: in backward, when it runs a second time.

    Traffic: 2 bytes per bf16 logit forward, 4 backward.
    """
    if logits_SBV.shape[:-1] != labels_SB.shape:
        raise ValueError(
            f"vocab_parallel_cross_entropy: logits {tuple(logits_SBV.shape)} and labels "
            f"{tuple(labels_SB.shape)} disagree; expected [.., V/tp] and [..]"
        )
    if not logits_SBV.is_contiguous():
        raise ValueError(
            f"vocab_parallel_cross_entropy: logits {tuple(logits_SBV.shape)} with strides "
            f"{logits_SBV.stride()} are not contiguous"
        )
    apply: Any = _VocabParallelCrossEntropy.apply
    out: Tensor = apply(logits_SBV, labels_SB, tp_group, z_loss, ignore_index)
    return out
