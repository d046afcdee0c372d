"""The layer specification: which module stands in each place of Megatron-Core's GPT."""

from __future__ import annotations

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

from megatron_salamandra.config import KernelsSection
from megatron_salamandra.model.activation import SwiGLU, TransformerEngineSwiGLU
from megatron_salamandra.model.core_attention import CausalAttention
from megatron_salamandra.model.linear import FusedGradientColumnLinear, FusedGradientRowLinear
from megatron_salamandra.model.norm import RMSNorm
from megatron_salamandra.model.rotary import PackedRopeSelfAttention


def layer_spec(kernels: KernelsSection) -> ModuleSpec:
    """One decoder layer: norm, attention, residual, norm, SwiGLU MLP, residual."""
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
