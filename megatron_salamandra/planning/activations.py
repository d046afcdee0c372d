"""What a layer and the head keep and use, in bytes, for one micro-batch on one rank.

Kept per token and layer, in elements, with attention that never stores scores (t tensor-parallel ranks; the first term
divides by t only with sequence parallelism):

    4 * hidden                                   two norms: their inputs and outputs
    + (heads + 2 * groups) * head_dim / t        packed queries, keys and values
    + heads * head_dim / t                       the attention output
    + heads * head_dim / t                       with grouped queries: rotated queries, beside the packed ones
    + 3 * ffn / t                                gate, up and their product

Recompute of the norms leaves out their outputs, that of the activation the product of gate and up. Full recompute keeps
the input of each layer and, while one layer runs backward, that layer's own activations. Selective recompute runs core
attention again and keeps the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.config import RunConfig

_LOSS_BYTES_PER_LOGIT = {"fused": 0, "transformer_engine": 4, "reference": 4}
"""Beside the logits themselves, where both are there: an fp32 gradient, or fp32 logits."""
_CAST_BLOCK_BYTES = 16 << 20
"""A block of a gradient in fp32, while it is multiplied for the weight's gradient."""


@dataclass(frozen=True)
class LayerBytes:
    """One layer.

    Attributes:
        kept: from its forward to its backward pass.
        again: what recompute brings back while it runs backward.
        working: gradients and gathered sequences of the widest moment of its backward pass.
        residual: this rank's part of the residual stream, as it goes from layer to layer.
    """

    kept: int
    again: int
    working: int
    residual: int


def layer_bytes(config: RunConfig) -> LayerBytes:
    """Of one layer, for one micro-batch; ``config`` is of one phase."""
    model, tensor, kernels = config.model, config.parallel.tensor, config.kernels
    element = element_bytes(config)
    tokens = config.training.micro_batch_size * config.data.sequence_length
    residual = model.hidden_size // (tensor if config.parallel.sequence else 1)
    query = model.attention_heads * model.head_dim // tensor
    key = model.groups * model.head_dim // tensor
    inner = model.ffn_hidden_size // tensor
    attention = 2 * query + 2 * key
    if model.groups < model.attention_heads or kernels.rope != "fused":
        attention += query if kernels.rope == "fused" else query + key
    mlp = (3 if kernels.swiglu == "fused" else 5) * inner
    whole = 4 * residual + attention + mlp
    recompute = config.training.recompute
    left_out = {
        "norms": 2 * residual,
        "activation": inner,
        "norms_and_activation": 2 * residual + inner,
        "full": whole - residual,
    }.get(recompute, 0)
    again = {"full": whole, "norms": residual, "activation": inner, "norms_and_activation": residual + inner}
    gathered = model.hidden_size if config.parallel.sequence else 0
    working = tokens * element * (residual + gathered + inner) + _operand_in_fp32(config, tokens * inner)
    return LayerBytes(
        kept=tokens * element * (whole - left_out),
        again=tokens * element * again.get(recompute, 0),
        working=working,
        residual=tokens * element * residual,
    )


def head_bytes(config: RunConfig) -> tuple[int, int]:
    """What the final norm keeps for the head, and what head and loss hold at their widest moment."""
    model, parallel = config.model, config.parallel
    element = element_bytes(config)
    tokens = config.training.micro_batch_size * config.data.sequence_length
    residual = model.hidden_size // (parallel.tensor if parallel.sequence else 1)
    at_once = min(tokens, config.kernels.loss_chunk_tokens or tokens)
    logits = at_once * model.vocab_size // parallel.tensor
    logits_bytes = logits * (element + _LOSS_BYTES_PER_LOGIT[config.kernels.loss])
    gradient = tokens * element * (model.hidden_size + (residual if parallel.sequence else 0))
    operand = _operand_in_fp32(config, tokens * model.hidden_size)
    if config.kernels.loss == "reference":
        gradient = operand = 0  # they come when the fp32 logits are gone, and are smaller
    return 2 * tokens * element * residual, logits_bytes + gradient + operand


def element_bytes(config: RunConfig) -> int:
    """Of weights and activations."""
    return 2 if config.precision == "bf16" else 4


def _operand_in_fp32(config: RunConfig, elements: int) -> int:
    """The weight gradient's second operand, where it is added to fp32 in place."""
    in_place = config.kernels.weight_gradient == "fused" and config.precision == "bf16"
    return 4 * elements + _CAST_BLOCK_BYTES if in_place else 0
