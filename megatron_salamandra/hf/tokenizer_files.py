"""The tokenizer files of an export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from megatron_salamandra.hf.tokenizer import ConvertedTokenizer


def write_tokenizer_files(
    directory: Path, converted: ConvertedTokenizer, model_path: Path, *, sequence_length: int
) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and tokenizer.model.

    Args:
        directory: existing directory of the export.
        sequence_length: longest input in tokens, written as ``model_max_length``.
    """
    converted.backend.save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", tokenizer_settings(converted, sequence_length))
    write_json(directory / "special_tokens_map.json", converted.special_tokens)
    shutil.copyfile(model_path, directory / "tokenizer.model")


def tokenizer_settings(converted: ConvertedTokenizer, sequence_length: int) -> dict[str, Any]:
    """The content of tokenizer_config.json.

    The class is the generic one: ``LlamaTokenizer`` rebuilds its pipeline from the vocabulary and
    gives other ids. No ``<s>`` is put in front, because training documents have none.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **converted.special_tokens,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": sequence_length,
        "split_special_tokens": True,
        "added_tokens_decoder": {
            str(converted.backend.token_to_id(symbol)): {
                "content": symbol,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for symbol in (converted.special_tokens["unk_token"], *converted.control_symbols)
        },
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
