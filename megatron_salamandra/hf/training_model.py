"""Reference logits: what the training model itself computes from a checkpoint, on one rank.

The only module of this room that runs Megatron-Core; it is imported where it is used.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from megatron_salamandra.checkpoint import load_checkpoint
from megatron_salamandra.config import ParallelSection, load_run_config
from megatron_salamandra.foundation.json_files import read_json_object
from megatron_salamandra.hf.errors import HuggingFaceError
from megatron_salamandra.hf.loading import check_model_directory
from megatron_salamandra.hf.parity import LogitParity, check_export
from megatron_salamandra.model import build_chunk, transformer_config
from megatron_salamandra.parallel import start_process_grid
from megatron_salamandra.platform import select_platform
from megatron_salamandra.run_directory import CONFIG, resolve_checkpoint, step_of


def megatron_logits(checkpoint: Path, tokens: Tensor, *, platform: str = "host") -> Tensor:
    """Run the model of a checkpoint, whatever layout wrote it, in fp32 on this process alone.

    Args:
        checkpoint: a step directory, a ``checkpoints`` directory or a run directory.
        tokens: [batch, sequence], int64; sequence at most the model's.
        platform: ``host``, ``cuda`` or ``auto``.
    Returns:
        [batch, sequence, V] fp32 on CPU.
    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged or of another model.
    """
    directory = resolve_checkpoint(checkpoint)
    whole_run = load_run_config(str(directory / CONFIG), [])
    saved = whole_run.at_step(step_of(directory))
    config = saved.model_copy(update={"precision": "fp32", "parallel": ParallelSection()})
    chosen = select_platform(platform)
    chosen.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, chosen):
            model = build_chunk(config, transformer_config(config, platform_name=chosen.name))
            model.to(chosen.device).eval()
            load_checkpoint(directory, whole_run, [model], None)
            positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
            with torch.no_grad():
                logits: Tensor = model(tokens.to(chosen.device), positions.to(chosen.device), None)
            return logits.float().cpu()
    finally:
        chosen.stop()


def compare_with_export(
    checkpoint: Path, export: Path, *, platform: str = "host", seed: int = 1
) -> LogitParity:
    """Compare both models, in fp32, on two sequences of random tokens of up to 256 each.

    Args:
        checkpoint, platform: as for :func:`megatron_logits`.
        export: directory written by an export of the same checkpoint.
    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged or of another model.
        HuggingFaceError: ``export`` is not a model directory, is damaged, or holds another model.
    """
    directory = resolve_checkpoint(checkpoint)
    config = load_run_config(str(directory / CONFIG), []).at_step(step_of(directory))
    check_model_directory(export)
    described = read_json_object(export / "config.json", error_class=HuggingFaceError)
    for key, expected in (
        ("vocab_size", config.model.vocab_size),
        ("hidden_size", config.model.hidden_size),
        ("num_hidden_layers", config.model.layers),
    ):
        if described.get(key) != expected:
            raise HuggingFaceError(
                f"{export / 'config.json'}: {key} = {described.get(key)}, but {checkpoint} has {expected}\n"
                "  compare a checkpoint with an export of the same run"
            )
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(
        0, config.model.vocab_size, (2, min(256, config.data.sequence_length)), generator=generator
    )
    return check_export(export, tokens, megatron_logits(checkpoint, tokens, platform=platform))
