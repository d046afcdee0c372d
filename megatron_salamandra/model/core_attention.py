"""Causal attention through PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule
from torch import Tensor


class CausalAttention(MegatronModule):
    """softmax(q k^T / sqrt(d)) v over the past, without an s x s matrix.

    Megatron-Core's own local attention materialises the scores and needs CUDA buffers; this one
    runs flash attention on CUDA in bf16 and its counterpart on the CPU, where query groups are
    shared inside the kernel (``enable_gqa``). In fp32 on CUDA, PyTorch has no such kernel for
    query groups and falls back to one that does hold the scores.
    """

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **_: Any) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale if softmax_scale is not None else 1.0 / math.sqrt(config.kv_channels)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
    ) -> Tensor:
        """query [s, b, heads, d], key and value [s, b, groups, d] -> [s, b, heads * d].

        Documents packed in one window attend across their end-of-document token, as in the
        published recipe; any mask other than the causal one is refused.
        """
        if attention_mask is not None:
            raise ValueError("CausalAttention is causal over the whole window and takes no mask")
        context = F.scaled_dot_product_attention(
            query.permute(1, 2, 0, 3),
            key.permute(1, 2, 0, 3),
            value.permute(1, 2, 0, 3),
            is_causal=True,
            scale=self.scale,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return context.permute(2, 0, 1, 3).flatten(2)
