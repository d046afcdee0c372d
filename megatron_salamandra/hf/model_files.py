"""The small files beside the weights: config.json, generation_config.json and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megatron_salamandra.config import ModelSection, RunConfig
from megatron_salamandra.hf.errors import OptionError
from megatron_salamandra.hf.sentencepiece_model import SpecialIds

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

# Keys of the ledger that are languages in the sense of a model card (ISO 639 codes).
_NOT_LANGUAGES = frozenset({"code"})


def choose_dtype(name: str, stored: torch.dtype) -> torch.dtype:
    """The dtype to export in: ``auto`` keeps the stored one.

    Raises:
        OptionError: unknown name.
    """
    if name == "auto":
        return stored
    if name not in DTYPES:
        raise OptionError(f"dtype {name!r} is not known\n  allowed: auto, {', '.join(DTYPES)}")
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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_card(
    config: RunConfig, state: Mapping[str, Any], *, parameters: int, dtype: str, tokenizer_note: str
) -> str:
    """The text of the card.

    Args:
        config: the configuration the checkpoint was written with.
        state: its training state: step, consumed_tokens and ledger are shown where present.
        parameters: number of weights.
        dtype: name of the exported dtype.
        tokenizer_note: outcome of comparing the tokenizer with its SentencePiece model.
    """
    model = config.model
    ledger = _ledger_rows(state.get("ledger"))
    consumed = state.get("consumed_tokens")
    sections = [
        _front_matter([language for language, *_ in ledger if language not in _NOT_LANGUAGES]),
        f"# {model.name}\n\nA base language model of the Salamandra architecture, trained with "
        "megatron-salamandra and exported from its sharded checkpoint. It continues text; it has not been "
        "tuned to follow instructions.",
        "\n".join(
            [
                "## Model",
                "",
                "| | |",
                "|---|---|",
                f"| parameters | {parameters:,} |",
                f"| layers, hidden size, MLP width | {model.layers}, {model.hidden_size}, {model.ffn_hidden_size} |",
                f"| query heads, key/value heads | {model.attention_heads}, {model.groups} |",
                f"| vocabulary | {model.vocab_size:,} |",
                f"| context | {config.data.sequence_length:,} tokens |",
                f"| RoPE base, RMSNorm eps | {model.rope_base:g}, {model.norm_eps:g} |",
                f"| weights | {dtype} |",
                f"| optimizer steps | {state.get('step', 'unknown')} |",
                *([f"| tokens read | {consumed:,} |"] if isinstance(consumed, int) else []),
            ]
        ),
    ]
    if ledger:
        rows = [f"| {language} | {tokens:,} | {epochs:.3f} |" for language, tokens, epochs in ledger]
        sections.append(
            "\n".join(["## Training data", "", "| source | tokens read | epochs |", "|---|---:|---:|", *rows])
        )
    sections.append(
        "## Tokenizer\n\n"
        f"{tokenizer_note}\n\n"
        "No `<s>` is put in front of a text: in training, documents follow one another separated by the end "
        "symbol alone. Control symbols written in a text stay text; pass `split_special_tokens=False` to "
        "`AutoTokenizer.from_pretrained` to have them read as symbols, as a chat template needs."
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(languages: Sequence[str]) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if languages:
        # Quoted: YAML reads a bare no (Norwegian) as false.
        lines += ["language:", *(f'- "{language}"' for language in languages)]
    return "\n".join([*lines, "---"])


def _ledger_rows(ledger: Any) -> list[tuple[str, int, float]]:
    """(language, tokens, epochs) by tokens, largest first; sources that were not read are left out."""
    if not isinstance(ledger, list):
        return []
    rows = [
        (str(entry["language"]), int(entry["tokens"]), float(entry.get("epochs", 0.0)))
        for entry in ledger
        if isinstance(entry, dict) and entry.get("tokens")
    ]
    return sorted(rows, key=lambda row: -row[1])
