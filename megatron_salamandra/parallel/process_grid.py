"""The grid of ranks: tensor x pipeline x data."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from megatron_salamandra.config import ParallelSection
from megatron_salamandra.foundation.world import free_port
from megatron_salamandra.parallel.collective_timeouts import FOR_EVER, long_timeout
from megatron_salamandra.platform import Platform


@dataclass(frozen=True)
class ProcessGrid:
    """Where this rank stands. Sizes multiply to ``world_size``; ranks count from 0."""

    rank: int
    local_rank: int
    world_size: int
    tensor_rank: int
    tensor_size: int
    pipeline_rank: int
    pipeline_size: int
    virtual_pipeline_size: int | None
    data_rank: int
    data_size: int

    @property
    def is_last_stage(self) -> bool:
        """True where the loss is computed (on the last model chunk of this rank)."""
        return self.pipeline_rank == self.pipeline_size - 1

    @property
    def reports_loss(self) -> bool:
        """True for the one rank of each data-parallel replica whose loss is counted."""
        return self.is_last_stage and self.tensor_rank == 0

    @property
    def model_chunks(self) -> int:
        """Model chunks on this rank: the virtual pipeline size, or 1."""
        return self.virtual_pipeline_size or 1

    def describe(self) -> str:
        """One line for logs, for example ``TP2 x PP2 x DP1 (4 ranks)``."""
        virtual = f" x VPP{self.virtual_pipeline_size}" if self.virtual_pipeline_size else ""
        return (
            f"TP{self.tensor_size} x PP{self.pipeline_size}{virtual} x DP{self.data_size} "
            f"({self.world_size} ranks)"
        )


def join_world(platform: Platform, timeout: datetime.timedelta = FOR_EVER) -> None:
    """Join the process group that ``torchrun`` or ``srun`` described in the environment.

    Without ``WORLD_SIZE`` in the environment the process becomes a world of one, so that
    ``python -m megatron_salamandra.train`` works without a launcher.
    """
    if dist.is_initialized():
        return
    if "WORLD_SIZE" not in os.environ:
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port())
        )
    # Without device_id: with it NCCL builds every later group at once, by a split in which the whole world takes part.
    # Megatron-Core makes thousands of groups in a large world, of which one rank is in a few.
    dist.init_process_group(backend=platform.backend, timeout=timeout)


def collectives_begun() -> int:
    """How many collectives this rank has begun over all of its groups; safe to call from another thread."""
    groups: list[Any] = list(dist.distributed_c10d._world.pg_map)
    return sum(group._get_sequence_number_for_group() for group in groups)


@contextmanager
def start_process_grid(
    parallel: ParallelSection, seed: int, platform: Platform, *, timeout_seconds: float | None = 1800.0
) -> Iterator[ProcessGrid]:
    """Join the world, split it into tensor, pipeline and data groups, and leave both at the end.

    Args:
        parallel: sizes; data parallelism is what remains of the world.
        seed: for Megatron-Core's random state tracker. The model draws nothing while training
            (no dropout), but recomputation asks the tracker for its states.
        timeout_seconds: after which a rank's watchdog ends it; collectives give up somewhat later. None is for ever.
    """
    joined_here = not dist.is_initialized()
    timeout = long_timeout(timeout_seconds)
    join_world(platform, timeout)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        create_gloo_process_groups=False,
        distributed_timeout_minutes=math.ceil(timeout.total_seconds() / 60),
    )
    try:
        tensor_parallel.model_parallel_cuda_manual_seed(seed)
        yield ProcessGrid(
            rank=dist.get_rank(),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            world_size=dist.get_world_size(),
            tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
            tensor_size=parallel_state.get_tensor_model_parallel_world_size(),
            pipeline_rank=parallel_state.get_pipeline_model_parallel_rank(),
            pipeline_size=parallel_state.get_pipeline_model_parallel_world_size(),
            virtual_pipeline_size=parallel.virtual_pipeline,
            data_rank=parallel_state.get_data_parallel_rank(),
            data_size=parallel_state.get_data_parallel_world_size(),
        )
    except BaseException:
        # Leaving NCCL is a collective: after a failure the other ranks may never come. The
        # process ends instead (see train.py), and its launcher ends the others.
        if platform.backend != "nccl":
            _leave(joined_here)
        raise
    _leave(joined_here)


def _leave(joined_here: bool) -> None:
    parallel_state.destroy_model_parallel()
    if joined_here and dist.is_initialized():
        dist.destroy_process_group()
