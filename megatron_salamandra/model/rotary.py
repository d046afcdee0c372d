"""Rotary position embedding: the table, and the attention that applies it to packed QKV."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.transformer.attention import SelfAttention
from torch import Tensor

from megatron_salamandra.config import ModelSection
from salamandra_kernels import RopeScaling, rope_split_qkv, rope_table


class RotaryTable(RotaryEmbedding):
    """Hands the layers one fp32 cos|sin table [s, head_dim] instead of angles.

    With ``positions`` [b, s] set it is [s, b, head_dim], the row of each token's position.

    Subclasses Megatron-Core's class for ``get_rotary_seq_len`` only, which knows that the
    sequence is longer than this rank's part of it under sequence parallelism.
    """

    def __init__(self, model: ModelSection) -> None:
        super().__init__(kv_channels=model.head_dim, rotary_percent=1.0, use_cpu_initialization=True)
        self.head_dim, self.base, self.scaling = model.head_dim, model.rope_base, rope_scaling(model)
        self.positions: Tensor | None = None
        self._table: Tensor | None = None

    def forward(self, max_seq_len: int, *_: Any, **__: Any) -> Tensor:
        if self._table is None or self._table.shape[0] < max_seq_len:
            device = torch.cuda.current_device()
            self._table = rope_table(
                max_seq_len, self.head_dim, self.base, scaling=self.scaling, device=torch.device(device)
            )
        if self.positions is not None:
            return self._table[self.positions.transpose(0, 1)]
        return self._table[:max_seq_len]


def rope_scaling(model: ModelSection) -> RopeScaling | None:
    """The change of the rotary frequencies that the configuration asks for."""
    scaling = model.rope_scaling
    if scaling is None:
        return None
    return RopeScaling(
        scaling.factor,
        scaling.original_sequence_length,
        scaling.low_frequency_factor,
        scaling.high_frequency_factor,
    )


def stock_rotary_embedding(model: ModelSection) -> RotaryEmbedding:
    """Megatron-Core's table of angles, for its own rotation and that of Transformer Engine."""
    stock = RotaryEmbedding(
        kv_channels=model.head_dim,
        rotary_percent=1.0,
        rotary_base=model.rope_base,
        use_cpu_initialization=True,
    )
    scaling = rope_scaling(model)
    if scaling is not None:
        stock.inv_freq = scaling.apply(stock.inv_freq)
    return stock


class PackedRopeSelfAttention(SelfAttention):
    """Self-attention whose RoPE runs in place on Megatron's packed QKV, before the split.

    The stock class splits first and rotates query and key on their own, which costs copies.
    Only two methods are touched: ``forward`` keeps the table and tells the stock code that there
    is no rotary embedding left to apply; ``get_query_key_value_tensors`` asks for the packed
    tensor, rotates and splits it into views.
    """

    _table: Tensor | None = None

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if kwargs.get("inference_context") is not None or kwargs.get("packed_seq_params") is not None:
            raise NotImplementedError("packed RoPE covers training on whole windows; export for inference")
        self._table = kwargs.pop("rotary_pos_emb")
        try:
            return super().forward(  # type: ignore[no-any-return]
                hidden_states, attention_mask, *args, rotary_pos_emb=None, **kwargs
            )
        finally:
            self._table = None

    def get_query_key_value_tensors(
        self, hidden_states: Tensor, key_value_states: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[s, b, h] -> query [s, b, heads, d], key and value [s, b, groups, d].

        Key and value are views of the packed buffer; query is one for multi-head attention and a
        copy where several heads share a group.
        """
        packed, (query_width, head_dim, _) = super().get_query_key_value_tensors(
            hidden_states, key_value_states, split_qkv=False
        )
        table, rows = self._table, None
        assert table is not None
        if table.dim() == 3:
            rows = torch.arange(packed.shape[0] * packed.shape[1], device=packed.device).view(
                packed.shape[:2]
            )
            table = table.flatten(0, 1)
        return rope_split_qkv(
            packed, table, q_per_group=query_width // head_dim, head_dim=head_dim, positions=rows
        )
