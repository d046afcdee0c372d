"""Causal attention through PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

import math
from typing import Any

import torch
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

        Args:
            attention_mask: None: documents of a window attend across their end, as in the published recipe.
                Else int32 [documents + 1], where documents begin in the b rows laid end to end (0 first, b * s
                last): no token attends to another document.
        """
        if attention_mask is not None and query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
            return self._flash_attention_by_document(query, key, value, attention_mask)
        context = F.scaled_dot_product_attention(
            query.permute(1, 2, 0, 3),
            key.permute(1, 2, 0, 3),
            value.permute(1, 2, 0, 3),
            attn_mask=None if attention_mask is None else _same_document(attention_mask, query.shape),
            is_causal=attention_mask is None,
            scale=self.scale,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return context.permute(2, 0, 1, 3).flatten(2)

    def _flash_attention_by_document(
        self, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor
    ) -> Tensor:
        """The documents of all rows as one packed batch: work falls with the square of their lengths."""
        from torch.nn.attention.varlen import varlen_attn

        length, rows = query.shape[:2]
        query, key, value = (heads.transpose(0, 1).flatten(0, 1) for heads in (query, key, value))
        packed: Any = varlen_attn(
            query,
            key,
            value,
            bounds,
            bounds,
            length,
            length,
            scale=self.scale,
            window_size=(-1, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        by_row: Tensor = packed.view(rows, length, -1)
        return by_row.transpose(0, 1)


def _same_document(bounds: Tensor, shape: torch.Size) -> Tensor:
    """bool [b, 1, s, s]: whether the first token may see the second, its document's past and itself."""
    length, rows = shape[:2]
    place = torch.arange(length * rows, device=bounds.device)
    document = torch.bucketize(place, bounds[1:], right=True).view(rows, length)
    same = document[:, :, None] == document[:, None, :]
    return same.tril_()[:, None]
