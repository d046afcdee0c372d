"""A runnable transformers model and tokenizer, from an export or straight from a sharded checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_salamandra.foundation.packages import require
from megatron_salamandra.hf.checkpoint_reader import ShardedCheckpoint
from megatron_salamandra.hf.errors import HuggingFaceError, OptionError
from megatron_salamandra.hf.model_files import choose_dtype, llama_settings
from megatron_salamandra.hf.sentencepiece_model import read_special_ids
from megatron_salamandra.hf.tokenizer import convert_tokenizer, tokenizer_settings


@dataclass(frozen=True)
class LoadedModel:
    """A ``LlamaForCausalLM`` in evaluation mode and its ``PreTrainedTokenizerFast``."""

    model: Any
    tokenizer: Any


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is a GPU if there is one.

    Raises:
        OptionError: no device of this name on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # torch raises RuntimeError, AssertionError or AcceleratorError by the way in which it is missing.
    except Exception as error:
        raise OptionError(f"device {name!r} cannot be used here: {error}\n  try: auto, cpu, cuda") from error
    return device


def load_export(directory: Path, *, device: torch.device, dtype: str = "auto") -> LoadedModel:
    """Load a Hugging Face model directory.

    Raises:
        HuggingFaceError: not such a directory, without tokenizer.json, or damaged.
        MissingPackage: transformers is not installed.
    """
    transformers = require("transformers", extra="hf", purpose="loading a Hugging Face model")
    check_model_directory(directory)
    if not (directory / "tokenizer.json").is_file():
        raise HuggingFaceError(
            f"{directory}: has no tokenizer.json, so no tokenizer is known to give the ids that the model was "
            "trained on; the README.md of an export says why\n  `salamandra hf export --tokenizer MODEL` writes one "
            "for a SentencePiece BPE model with byte fallback"
        )
    with _telling_which(directory):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory))
    model = load_llama(directory, dtype=dtype)
    return LoadedModel(model=model.to(device), tokenizer=tokenizer)


def load_checkpoint(path: Path, *, device: torch.device, dtype: str = "auto") -> LoadedModel:
    """Build the same model and tokenizer from a sharded checkpoint in memory; no file is written.

    Args:
        path: a step directory, a ``checkpoints`` directory or a run directory.
    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged or of another model.
        HuggingFaceError: no usable tokenizer.
        MissingPackage: transformers is not installed.
    """
    transformers = require("transformers", extra="hf", purpose="running a checkpoint")
    source = ShardedCheckpoint.open(path)
    if source.tokenizer_model is None:
        raise HuggingFaceError(f"{source.path}: the checkpoint has no tokenizer.model")
    converted = convert_tokenizer(source.tokenizer_model)
    settings = tokenizer_settings(converted, source.config.data.sequence_length)
    for only_in_files in ("tokenizer_class", "added_tokens_decoder"):
        del settings[only_in_files]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=converted.backend, **settings)
    chosen = choose_dtype(dtype, source.stored_dtype)
    ids = read_special_ids(source.tokenizer_model, source.config.model.vocab_size)
    config = transformers.LlamaConfig(
        **llama_settings(source.config.model, source.config.data.sequence_length, chosen, ids)
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    weights = {name: tensor.to(device, chosen) for name, tensor in source.huggingface_tensors()}
    model.load_state_dict(weights, strict=True, assign=True)
    # RoPE frequencies are not weights: they are still on the meta device.
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return LoadedModel(model=model.eval(), tokenizer=tokenizer)


def check_model_directory(directory: Path) -> None:
    """Refuse what is not a model directory on this machine; transformers would take its name for one on the Hub.

    Raises:
        HuggingFaceError: no such directory, or without config.json.
    """
    if not (directory / "config.json").is_file():
        raise HuggingFaceError(f"{directory}: not a Hugging Face model directory: it has no config.json")


def load_llama(directory: Path, *, dtype: torch.dtype | str) -> Any:
    """The model of an export, on the CPU in evaluation mode.

    Raises:
        HuggingFaceError: not a model directory, or damaged.
        MissingPackage: transformers is not installed.
    """
    transformers = require("transformers", extra="hf", purpose="loading a Hugging Face model")
    check_model_directory(directory)
    with _telling_which(directory):
        return transformers.AutoModelForCausalLM.from_pretrained(str(directory), dtype=dtype).eval()


@contextmanager
def _telling_which(directory: Path) -> Iterator[None]:
    """Turn whatever the libraries raise about damaged files into one line that names the directory."""
    try:
        yield
    # OSError, ValueError, KeyError, safetensors' and tokenizers' own: there is no common root.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise HuggingFaceError(
            f"{directory}: transformers cannot load this model: {type(error).__name__}: {lines[0]}\n  export it again"
        ) from error
