"""The Salamandra model: Megatron-Core's GPT with our layer specification.

Public names: :func:`build_model_chunks` (for training), :func:`build_chunk` (one unwrapped
chunk), :class:`SalamandraModel`, :func:`transformer_config`.
"""

from __future__ import annotations

from megatron_salamandra.model.build import build_chunk, build_model_chunks, unwrap
from megatron_salamandra.model.salamandra import SalamandraModel
from megatron_salamandra.model.transformer_config import transformer_config

__all__ = ["SalamandraModel", "build_chunk", "build_model_chunks", "transformer_config", "unwrap"]
