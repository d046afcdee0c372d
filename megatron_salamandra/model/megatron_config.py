"""From our run configuration to Megatron-Core's ``TransformerConfig``."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer import TransformerConfig

from megatron_salamandra.config import ConfigError, RunConfig
from salamandra_kernels import products_sum_in_fp32

RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    # The published runs recompute core attention only ("selective").
    "selective": {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
    "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
}


def compute_dtype(precision: str) -> torch.dtype:
    """Dtype of parameters and activations for a ``precision`` of the configuration."""
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def pipeline_messages(virtual_pipeline: int | None) -> dict[str, bool]:
    """How activations and their gradients travel between pipeline stages; the same over gloo and over NCCL.

    An interleaved pipeline overlaps its messages with computation and sends each by itself. Batched calls would be
    wrong there with two stages: the stage before and the stage after are then one process, a batch pairs sends with
    receives by their order alone, and so activations arrive as gradients, in silence. Without interleaving a batch
    never holds two messages of one direction, and saves launches.

    Args:
        virtual_pipeline: model chunks per stage of an interleaved pipeline, or None.
    Returns:
        Fields of ``TransformerConfig``. No device synchronisation after a batch: it works around a fault of torch
        before 1.13.
    """
    interleaved = virtual_pipeline is not None
    return {
        "batch_p2p_comm": not interleaved,
        "overlap_p2p_comm": interleaved,
        "batch_p2p_sync": False,
    }


def transformer_config(config: RunConfig, *, platform_name: str) -> TransformerConfig:
    """Megatron-Core's view of the model and its parallelism.

    Weights are drawn by :func:`megatron_salamandra.parallel.initialize_parameters`, not by
    Megatron-Core, whose initial values depend on the layout. ``calculate_per_token_loss`` makes
    gradients means over the global number of valid tokens, whatever the number of micro-batches.

    Args:
        platform_name: ``cuda`` or ``host``.
    Raises:
        ConfigError: a kernel was asked for that the platform or this torch does not have.
    """
    model, parallel, kernels = config.model, config.parallel, config.kernels
    _check_platform(config, platform_name)
    dtype = compute_dtype(config.precision)
    return TransformerConfig(
        num_layers=model.layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.attention_heads,
        num_query_groups=model.groups,
        kv_channels=model.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_eps,
        gated_linear_unit=True,
        activation_func=F.silu,
        # Whatever its name says, this makes the MLP call the activation module of the spec.
        use_te_activation_func=kernels.swiglu != "reference",
        apply_rope_fusion=kernels.rope == "transformer_engine",
        cross_entropy_loss_fusion=kernels.loss == "transformer_engine",
        cross_entropy_fusion_impl="te",
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=model.init_std,
        perform_initialization=False,
        use_cpu_initialization=True,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=config.precision == "bf16",
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        pipeline_model_parallel_layout=parallel.pipeline_layout,
        sequence_parallel=parallel.sequence,
        **pipeline_messages(parallel.virtual_pipeline),
        calculate_per_token_loss=True,
        gradient_accumulation_fusion=kernels.weight_gradient == "apex",
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        softmax_scale=1.0 / math.sqrt(model.head_dim),
        **RECOMPUTE[config.training.recompute],
    )


def _check_platform(config: RunConfig, platform_name: str) -> None:
    if platform_name == "cuda":
        masked_in_bf16 = config.precision == "bf16" and config.data.document_masking
        if masked_in_bf16 and not _attends_by_document():
            raise ConfigError(
                "data.document_masking = true needs torch.nn.attention.varlen_attn with grouped queries and a window "
                f"on CUDA, which torch {torch.__version__} does not have\n"
                "  install torch 2.13 or later, or set data.document_masking=false"
            )
        in_bf16 = config.precision == "bf16" and config.kernels.weight_gradient == "fused"
        if in_bf16 and not products_sum_in_fp32(torch.device("cuda", torch.cuda.current_device())):
            raise ConfigError(
                "kernels.weight_gradient = fused needs torch.addmm to add bf16 products to an fp32 sum, which "
                f"torch {torch.__version__} does not do on this GPU\n"
                "  install torch 2.13 or later, or use kernels.weight_gradient = reference"
            )
        return
    for key, value in config.kernels.model_dump().items():
        if value in ("transformer_engine", "apex"):
            raise ConfigError(
                f"kernels.{key} = {value} runs on CUDA only, and this is the {platform_name} platform\n"
                f"  use kernels.{key} = fused or reference, or platform=cuda"
            )


def _attends_by_document() -> bool:
    """Whether this torch has attention over documents of different length, with what ``core_attention`` asks of it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa"} <= inspect.signature(varlen_attn).parameters.keys()
