"""The Salamandra model: Megatron-Core's GPT with our layer specification.

Public names: :func:`build_model_chunks` (for training), :func:`build_chunk` (one unwrapped
chunk), :class:`SalamandraModel`, :func:`transformer_config`, and :func:`model_forward` (the forward pass on one page).
"""

from __future__ import annotations

from megatron_salamandra.model.build import build_chunk, build_model_chunks, unwrap
from megatron_salamandra.model.megatron_config import transformer_config
from megatron_salamandra.model.salamandra import SalamandraModel
from megatron_salamandra.model.spec import layer_forward, model_forward

__all__ = [
    "SalamandraModel",
    "build_chunk",
    "build_model_chunks",
    "layer_forward",
    "model_forward",
    "transformer_config",
    "unwrap",
]
