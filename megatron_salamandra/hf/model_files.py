"""config.json and generation_config.json of an export."""

from __future__ import annotations

from typing import Any

import torch

from megatron_salamandra.config import ModelSection
from megatron_salamandra.hf.errors import HuggingFaceError
from megatron_salamandra.hf.sentencepiece_model import SpecialIds

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def choose_dtype(name: str, stored: torch.dtype) -> torch.dtype:
    """The dtype to export in: ``auto`` keeps the stored one.

    Raises:
        HuggingFaceError: unknown name.
    """
    if name == "auto":
        return stored
    if name not in DTYPES:
        raise HuggingFaceError(f"dtype {name!r} is not known\n  allowed: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def llama_settings(
    model: ModelSection, sequence_length: int, dtype: torch.dtype, ids: SpecialIds
) -> dict[str, Any]:
    """The content of config.json: this model as a ``LlamaForCausalLM``.

    ``rope_theta`` and ``torch_dtype`` are the names that transformers 4 and other runtimes read;
    transformers 5 understands them too.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.groups,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sequence_length,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_base,
        **_rope_scaling(model),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": ids.begin,
        "eos_token_id": ids.end,
        "pad_token_id": ids.padding,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def _rope_scaling(model: ModelSection) -> dict[str, Any]:
    scaling = model.rope_scaling
    if scaling is None:
        return {}
    return {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_sequence_length,
        }
    }


def generation_settings(ids: SpecialIds) -> dict[str, Any]:
    """The content of generation_config.json."""
    return {
        "bos_token_id": ids.begin,
        "eos_token_id": ids.end,
        "pad_token_id": ids.padding,
    }
