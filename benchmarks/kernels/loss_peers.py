"""The loss, and the output layer with the loss: every implementation behind one signature, on one rank.

The whole of the rank's logits or classes is measured as it is; what tensor parallelism sends is not. All losses
start from an upstream gradient of 1. Liger's and torch's functions give one sum, which cannot be weighted by
token afterwards as the others can.

Output layer and loss are measured up to the point where ``weight.main_grad``, the fp32 sum that Megatron-Core's
DDP keeps, has the gradient of the weight in it. What happens on the way:

- ours: every product is added to ``main_grad`` in fp32 by the product itself (with chunks: once per chunk);
- Liger: summed over its chunks in an fp32 buffer, rounded to the weight's dtype, then added by DDP's hook;
- megatron-core (without apex), eager, torch: rounded to the weight's dtype, then added by DDP's hook.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from peers import Implementation, compiled, optional_module
from torch import Tensor

from salamandra_kernels import (
    accumulate_weight_gradient,
    chunked_linear_cross_entropy,
    gradient_already_added,
    vocab_parallel_cross_entropy,
)

CHUNKS = (2048, 4096)


def _eager_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")


def _fused_core_loss() -> Implementation | None:
    """Megatron-Core's loss with its own fusions."""
    fused = optional_module("megatron-core", "megatron.core.fusions.fused_cross_entropy")
    if fused is None:
        return None
    state = importlib.import_module("megatron.core.parallel_state")
    return lambda logits, labels: fused.fused_vocab_parallel_cross_entropy(
        logits, labels, state.get_tensor_model_parallel_group()
    )


def loss_entries() -> dict[str, Implementation]:
    """``(logits [S, 1, V], labels [S, 1]) -> loss [S, 1]``, or the sum of that."""
    entries: dict[str, Implementation] = {
        "ours": vocab_parallel_cross_entropy,
        "eager": _eager_loss,
        "compile": compiled(_eager_loss),
    }
    if core := optional_module("megatron-core", "megatron.core.tensor_parallel.cross_entropy"):
        entries["megatron-core"] = core.vocab_parallel_cross_entropy
    if fused := _fused_core_loss():
        entries["megatron-core-fused"] = fused
    if liger := optional_module("liger-kernel", "liger_kernel.transformers.functional"):
        # The sum: with a loss for each token its backward pass would make an fp32 copy of the gradient.
        entries["liger-kernel"] = lambda logits, labels: liger.liger_cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum"
        )
    if parallel := optional_module(
        "liger-kernel (vocabulary-parallel)", "liger_kernel.ops.vocab_parallel_cross_entropy"
    ):
        # tp_group, ignore_index, label smoothing, its formula and its mode, as Liger's Megatron adapter sets them
        entries["liger-kernel-parallel"] = lambda logits, labels: parallel.LigerVocabParallelCEFunction.apply(
            logits, labels, None, -100, 0.0, "megatron", "partition"
        )
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch.cross_entropy"):
        # Versions without the argument choose for themselves what they overwrite.
        named = {"overwrite_input": True} if _takes(engine.parallel_cross_entropy, "overwrite_input") else {}
        entries["transformer-engine"] = lambda logits, labels: engine.parallel_cross_entropy(
            logits, labels, **named
        )
    return entries


def _takes(function: Any, argument: str) -> bool:
    try:
        return argument in inspect.signature(function).parameters
    except (TypeError, ValueError):  # an autograd function's apply, before 2.10
        return False


class _OurLinear(torch.autograd.Function):
    """The output layer as our model has it: the weight's gradient is added to ``main_grad`` by the product."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        ctx.weight = weight
        return F.linear(hidden, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (hidden,) = ctx.saved_tensors
        grad_hidden = grad.matmul(ctx.weight)
        accumulate_weight_gradient(ctx.weight.main_grad, grad.flatten(0, 1), hidden.flatten(0, 1))
        return grad_hidden, gradient_already_added(ctx.weight)


def head_entries(weight: torch.nn.Parameter) -> dict[str, Implementation]:
    """``(hidden [S, 1, H], labels [S, 1]) -> loss [S, 1]``, or the sum of that; ``weight`` is [V, H]."""
    entries: dict[str, Implementation] = {
        "ours": lambda hidden, labels: vocab_parallel_cross_entropy(_OurLinear.apply(hidden, weight), labels),
    }
    for tokens in CHUNKS:
        entries[f"ours-chunked-{tokens}"] = lambda hidden, labels, tokens=tokens: (
            chunked_linear_cross_entropy(hidden, weight, labels, chunk_tokens=tokens)
        )
    entries["eager"] = lambda hidden, labels: _eager_loss(F.linear(hidden, weight), labels)
    fused = _fused_core_loss()
    layers = optional_module("megatron-core", "megatron.core.tensor_parallel.layers")
    if fused and layers:
        entries["megatron-core-fused"] = lambda hidden, labels: fused(
            layers.linear_with_grad_accumulation_and_async_allreduce(
                hidden,
                weight,
                bias=None,
                gradient_accumulation_fusion=False,
                allreduce_dgrad=False,
                sequence_parallel=False,
            ),
            labels,
        )
    if liger := optional_module("liger-kernel", "liger_kernel.transformers.functional"):
        entries["liger-kernel"] = lambda hidden, labels: liger.liger_fused_linear_cross_entropy(
            hidden.flatten(0, 1), weight, labels.flatten(), reduction="sum", accum_dtype=torch.float32
        )
    if hasattr(F, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions"):
        entries["torch"] = lambda hidden, labels: F.linear_cross_entropy(
            hidden.flatten(0, 1),
            weight,
            labels.flatten(),
            reduction="sum",
            options=torch.nn.LinearCrossEntropyOptions(),
        )
    return entries
