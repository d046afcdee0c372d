"""The blend of a run: found, checked against the configuration, and frozen."""

from __future__ import annotations

import logging
from pathlib import Path

import torch.distributed as dist

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.data import LOCK
from megatron_salamandra.parallel import ProcessGrid
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError


def open_blend(config: RunConfig, run_dir: Path, grid: ProcessGrid, logger: logging.Logger) -> BlendPlan:
    """Load ``data.blend``, check that it fits the model and the run, and freeze it; collective.

    Raises:
        ConfigError: no blend, or a tokenizer with more ids than the model has rows.
        DataError: the blend's files are not what it says, or the run was started on another blend.
    """
    if config.data.blend is None:
        raise ConfigError(
            "data.blend is not set\n  name a blend plan: data.blend=PATH (salamandra data blend makes one)"
        )
    plan = BlendPlan.load(config.data.blend)
    if plan.tokenizer.vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size} is smaller than the {plan.tokenizer.vocab_size} ids "
            f"of {plan.tokenizer.path}\n  raise model.vocab_size to at least {plan.tokenizer.vocab_size} "
            f"(a multiple of parallel.tensor = {config.parallel.tensor})"
        )
    lock = run_dir / LOCK
    # Compared by content: the data may have been moved since, and the lock names old places.
    if lock.exists() and BlendPlan.parse(lock).fingerprint() != plan.fingerprint():
        raise DataError(
            f"{config.data.blend} differs from {lock}, on which this run was started\n"
            "  restore the blend, or start a new run_dir"
        )
    # All ranks have compared before rank 0 may write.
    dist.barrier()
    if grid.rank == 0 and not lock.exists():
        plan.freeze(lock)
    unused = config.model.vocab_size - plan.tokenizer.vocab_size
    if unused:
        logger.info("the vocabulary has %d rows that the tokenizer does not use", unused)
    return plan
