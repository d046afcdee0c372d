"""The model on one page, and which module stands in each place of Megatron-Core's GPT.

:func:`model_forward` and :func:`layer_forward` are the whole forward pass, written out. Training does not run them: it
runs the modules named in :func:`layer_spec`, which compute the same and besides split, overlap and recompute; a test
holds the two bit for bit together. Of the operations, ``rms_norm``, ``rope_split_qkv`` and ``swiglu`` are ours
(``kernels/``), and so is the loss behind the logits; attention is PyTorch's, products are the platform's library.

Shape letters: S sequence, B batch, H hidden size, V vocabulary, G query groups, Q query heads of a group, D head
dimension, F MLP width. With t tensor-parallel ranks G, F and V are each rank's share, and the two products that write
into the residual stream are summed over the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from megatron_salamandra.config import KernelsSection, ModelSection
from megatron_salamandra.model.activation import SwiGLU, TransformerEngineSwiGLU
from megatron_salamandra.model.core_attention import CausalAttention
from megatron_salamandra.model.linear import FusedGradientColumnLinear, FusedGradientRowLinear
from megatron_salamandra.model.norm import RMSNorm
from megatron_salamandra.model.rotary import PackedRopeSelfAttention, rope_scaling
from salamandra_kernels import rms_norm, rope_split_qkv, rope_table, swiglu


def model_forward(tokens_BS: Tensor, weights: Mapping[str, Tensor], model: ModelSection) -> Tensor:
    """From ids to logits, on one rank.

    Args:
        tokens_BS: [B, S] int64.
        weights: parameters by the names that Megatron-Core gives them (``megatron_salamandra.weights``).
    Returns:
        [B, S, V].
    """
    rotations_SD = rope_table(
        tokens_BS.shape[1], model.head_dim, model.rope_base, scaling=rope_scaling(model)
    )
    hidden_SBH = F.embedding(tokens_BS.transpose(0, 1), weights["embedding.word_embeddings.weight"])
    for layer in range(model.layers):
        prefix = f"decoder.layers.{layer}."
        own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        hidden_SBH = layer_forward(hidden_SBH, own, rotations_SD, model)
    hidden_SBH = rms_norm(hidden_SBH, weights["decoder.final_layernorm.weight"], model.norm_eps)
    logits_SBV = F.linear(hidden_SBH, weights["output_layer.weight"])
    return logits_SBV.transpose(0, 1)


def layer_forward(
    hidden_SBH: Tensor, weights: Mapping[str, Tensor], rotations_SD: Tensor, model: ModelSection
) -> Tensor:
    """One decoder layer, on one rank: attention and MLP, each on a normed copy, each added to the residual stream.

    Args:
        hidden_SBH: the residual stream, [S, B, H].
        weights: the layer's parameters by name, without the layer's prefix.
        rotations_SD: [S, D] fp32, cosines and sines of the rotary embedding.
    Returns:
        [S, B, H].
    """
    length, batch, _ = hidden_SBH.shape
    query_heads = model.attention_heads // model.groups

    # Attention. Heads lie group by group in one packed tensor: its queries, its key, its value.
    normed_SBH = rms_norm(hidden_SBH, weights["input_layernorm.weight"], model.norm_eps)
    packed = F.linear(normed_SBH, weights["self_attention.linear_qkv.weight"])  # [S, B, G * (Q + 2) * D]
    query, key, value = (
        rope_split_qkv(  # [S, B, G * Q, D] and twice [S, B, G, D]; rotated in place, split into views
            packed.view(length, batch, model.groups, -1),
            rotations_SD,
            q_per_group=query_heads,
            head_dim=model.head_dim,
        )
    )
    attended = F.scaled_dot_product_attention(  # [B, G * Q, S, D]
        query.permute(1, 2, 0, 3),
        key.permute(1, 2, 0, 3),
        value.permute(1, 2, 0, 3),
        is_causal=True,
        scale=model.head_dim**-0.5,
        enable_gqa=query_heads > 1,
    )
    attended = attended.permute(2, 0, 1, 3).flatten(2)  # [S, B, G * Q * D]
    hidden_SBH = hidden_SBH + F.linear(attended, weights["self_attention.linear_proj.weight"])

    # MLP: gate and up in one product, SwiGLU, down.
    normed_SBH = rms_norm(hidden_SBH, weights["pre_mlp_layernorm.weight"], model.norm_eps)
    gate_up = F.linear(normed_SBH, weights["mlp.linear_fc1.weight"])  # [S, B, 2 * F]
    return hidden_SBH + F.linear(swiglu(gate_up), weights["mlp.linear_fc2.weight"])


def layer_spec(kernels: KernelsSection) -> ModuleSpec:
    """The modules that compute :func:`layer_forward` in training."""
    fused_gradient = kernels.weight_gradient == "fused"
    column = FusedGradientColumnLinear if fused_gradient else ColumnParallelLinear
    row = FusedGradientRowLinear if fused_gradient else RowParallelLinear
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=ModuleSpec(
                module=PackedRopeSelfAttention if kernels.rope == "fused" else SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=column,
                    core_attention=CausalAttention,
                    linear_proj=row,
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=ModuleSpec(
                module=MLP,
                submodules=MLPSubmodules(
                    linear_fc1=column, linear_fc2=row, activation_func=_activation(kernels)
                ),
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )


def _activation(kernels: KernelsSection) -> type | None:
    """The MLP's activation module; None makes Megatron-Core's MLP apply its own."""
    return {"fused": SwiGLU, "transformer_engine": TransformerEngineSwiGLU, "reference": None}[kernels.swiglu]


def block_spec(
    config: TransformerConfig, kernels: KernelsSection, virtual_stage: int | None, pipeline_rank: int
) -> TransformerBlockSubmodules:
    """The layers that one model chunk of this rank holds, and the norm behind the last of them."""
    count = get_num_layers_to_build(config, vp_stage=virtual_stage, pp_rank=pipeline_rank)
    return TransformerBlockSubmodules(
        layer_specs=[layer_spec(kernels) for _ in range(count)], layer_norm=RMSNorm
    )
