"""Loading a checkpoint, in the layout it was saved in or in another one."""

from __future__ import annotations

from pathlib import Path

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.serialization import get_default_load_sharded_strategy
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelLoadStrategyWrapper
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_salamandra.checkpoint.contents import model_key, sharded_state
from megatron_salamandra.checkpoint.integrity import check_together
from megatron_salamandra.checkpoint.metadata import weights_only
from megatron_salamandra.config import RunConfig
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.model import unwrap
from megatron_salamandra.run_directory import (
    SHARDS,
    CheckpointError,
    CheckpointState,
    check_same_model,
    read_state,
)


def load_checkpoint(
    directory: Path,
    config: RunConfig,
    chunks: list[DistributedDataParallel],
    optimizer: MegatronOptimizer | None,
    *,
    checked: bool = False,
) -> CheckpointState:
    """Fill model and optimizer from a checkpoint and return its ``state.json``; collective.

    Args:
        optimizer: None loads weights only.
        checked: whether :func:`~megatron_salamandra.checkpoint.integrity.check_together` has proved it just now.
    Raises:
        CheckpointError: the directory is incomplete, damaged or of another model, which is found before the model is
            touched.
    """
    if not checked:
        check_together(directory)
    with PROGRESS.inside(Part.LOAD, directory.name):
        return _load(directory, config, chunks, optimizer)


def _load(
    directory: Path,
    config: RunConfig,
    chunks: list[DistributedDataParallel],
    optimizer: MegatronOptimizer | None,
) -> CheckpointState:
    check_same_model(directory, config.model.computation())
    state = read_state(directory)
    sharded = sharded_state(chunks, optimizer, loading=True)
    try:
        shards = str(directory / SHARDS)
        # Each rank reads a part and data-parallel ranks exchange them, instead of all reading all.
        strategy = FullyParallelLoadStrategyWrapper(
            get_default_load_sharded_strategy(shards),
            parallel_state.get_data_parallel_group(with_context_parallel=True),
        )
        with weights_only():
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
