"""Building this rank's model chunks, ready for training."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import Float16Module
from torch import nn

from megatron_salamandra.config import RunConfig
from megatron_salamandra.model.megatron_config import transformer_config
from megatron_salamandra.model.salamandra import SalamandraModel
from megatron_salamandra.parallel import ProcessGrid, initialize_parameters
from megatron_salamandra.platform import Platform


def build_chunk(
    config: RunConfig, transformer: TransformerConfig, virtual_stage: int | None = None
) -> SalamandraModel:
    """One unwrapped model chunk of this rank, on the current default device, not yet initialised."""
    where: dict[str, Any] = {"ignore_virtual": False, "vp_stage": virtual_stage}
    return SalamandraModel(
        transformer,
        model=config.model,
        sequence_length=config.data.sequence_length,
        kernels=config.kernels,
        use_position_ids=config.data.reset_positions,
        z_loss=config.training.z_loss,
        virtual_stage=virtual_stage,
        pre_process=parallel_state.is_pipeline_first_stage(**where),
        post_process=parallel_state.is_pipeline_last_stage(**where),
    )


def unwrap(module: nn.Module) -> SalamandraModel:
    """The model under the data-parallel and mixed-precision wrappers."""
    inner: Any = module
    while not isinstance(inner, SalamandraModel):
        inner = inner.module
    return inner


def build_model_chunks(
    config: RunConfig, grid: ProcessGrid, platform: Platform, *, draw_weights: bool = True
) -> list[DistributedDataParallel]:
    """Build, initialise, place and wrap every model chunk of this rank.

    The order of wrappers is Megatron-Core's: data parallelism around bf16 conversion around the
    model. Gradients are accumulated and reduced in fp32.

    Args:
        draw_weights: False for a model whose weights have no contents.
    """
    transformer = transformer_config(config, platform_name=platform.name)
    chunks: list[nn.Module] = []
    for stage in range(grid.model_chunks):
        virtual_stage = stage if grid.virtual_pipeline_size else None
        chunk = build_chunk(config, transformer, virtual_stage)
        initialize_parameters(
            chunk,
            seed=config.training.seed,
            init_std=config.model.init_std,
            layers=config.model.layers,
            tensor_rank=grid.tensor_rank,
            tensor_size=grid.tensor_size,
            draw=draw_weights,
        )
        chunk.to(platform.device)
        chunks.append(Float16Module(transformer, chunk) if config.precision == "bf16" else chunk)
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        overlap_grad_reduce=config.optimizer.overlap_grad_reduce,
        overlap_param_gather=config.optimizer.overlap_param_gather,
    )
    wrapped = [
        DistributedDataParallel(
            config=transformer,
            ddp_config=ddp_config,
            module=chunk,
            # Reductions of later chunks overlap with the backward pass of earlier ones anyway.
            disable_bucketing=number > 0,
        )
        for number, chunk in enumerate(chunks)
    ]
    torch.distributed.barrier()
    return wrapped
