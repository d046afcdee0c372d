"""Loading a checkpoint, in the layout it was saved in or in another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.serialization import get_default_load_sharded_strategy
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelLoadStrategyWrapper
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_salamandra.checkpoint.contents import model_key, sharded_state
from megatron_salamandra.config import RunConfig
from megatron_salamandra.model import unwrap
from megatron_salamandra.run_directory import (
    CONFIG,
    SHARDS,
    CheckpointError,
    CheckpointState,
    read_state,
    verify_checkpoint,
)


def _check_same_model(directory: Path, config: RunConfig) -> None:
    path = directory / CONFIG
    try:
        saved: Any = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}; use another checkpoint") from error
    for key, value in config.model.computation().items():
        if saved.get(key) != value:
            raise CheckpointError(
                f"{directory} is a checkpoint of another model: model.{key} is {saved.get(key)} there and "
                f"{value} in this run\n  use another run_dir, or the configuration the checkpoint was made with"
            )


def load_checkpoint(
    directory: Path,
    config: RunConfig,
    chunks: list[DistributedDataParallel],
    optimizer: MegatronOptimizer | None,
) -> CheckpointState:
    """Fill model and optimizer from a checkpoint and return its ``state.json``; collective.

    Args:
        optimizer: None loads weights only.
    Raises:
        CheckpointError: the directory is incomplete, damaged or of another model. Everything but
            damage inside a file of tensors is found before the model is touched.
    """
    verify_checkpoint(directory, checksums=False)
    _check_same_model(directory, config)
    state = read_state(directory)
    sharded = sharded_state(chunks, optimizer, loading=True)
    try:
        shards = str(directory / SHARDS)
        # Each rank reads a part and data-parallel ranks exchange them, instead of all reading all.
        strategy = FullyParallelLoadStrategyWrapper(
            get_default_load_sharded_strategy(shards),
            parallel_state.get_data_parallel_group(with_context_parallel=True),
        )
        loaded = dist_checkpointing.load(sharded, shards, strategy)
    # torch and Megatron-Core raise many kinds; torch's CheckpointException is no Exception.
    except (Exception, CheckpointException) as error:
        raise CheckpointError(
            f"{directory / SHARDS} cannot be loaded: {error}; use another checkpoint"
        ) from error
    with torch.no_grad():
        for number, chunk in enumerate(chunks):
            unwrap(chunk).load_state_dict(loaded[model_key(number, len(chunks))])
        if optimizer is not None:
            optimizer.load_state_dict(loaded["optimizer"])
    return state
