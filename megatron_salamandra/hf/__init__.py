"""Hugging Face: name mapping, streaming export of sharded checkpoints, tokenizer conversion, parity.

Needs the ``hf`` extra for tokenizers and transformers; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_salamandra.hf.checkpoint_reader import ShardedCheckpoint
from megatron_salamandra.hf.errors import HuggingFaceError, OptionError, TokenizerConversionError
from megatron_salamandra.hf.export import ExportReport, export_checkpoint, shard_bytes_of
from megatron_salamandra.hf.loading import LoadedModel, choose_device, load_checkpoint, load_export
from megatron_salamandra.hf.parity import LogitParity, check_export, compare_logits
from megatron_salamandra.hf.tokenizer import convert_tokenizer
from megatron_salamandra.hf.tokenizer_verification import (
    TokenizerReport,
    document_texts,
    probe_texts,
    verify_tokenizer,
)

if TYPE_CHECKING:
    from megatron_salamandra.hf.training_model import compare_with_export, megatron_logits

__all__ = [
    "ExportReport",
    "HuggingFaceError",
    "LoadedModel",
    "LogitParity",
    "OptionError",
    "ShardedCheckpoint",
    "TokenizerConversionError",
    "TokenizerReport",
    "check_export",
    "choose_device",
    "compare_logits",
    "compare_with_export",
    "convert_tokenizer",
    "document_texts",
    "export_checkpoint",
    "load_checkpoint",
    "load_export",
    "megatron_logits",
    "probe_texts",
    "shard_bytes_of",
    "verify_tokenizer",
]


def __getattr__(name: str) -> Any:
    """The two that run Megatron-Core, which the others do not need, are imported when asked for."""
    if name in ("compare_with_export", "megatron_logits"):
        from megatron_salamandra.hf import training_model

        return getattr(training_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
