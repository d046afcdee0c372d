"""The model and its optimizer, joined such that the schedule of the pipeline finds what it needs of both."""

from __future__ import annotations

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.config import RunConfig
from megatron_salamandra.model import build_model_chunks
from megatron_salamandra.optim import build_optimizer
from megatron_salamandra.parallel import ProcessGrid
from megatron_salamandra.platform import Platform


def build_model_and_optimizer(
    config: RunConfig, grid: ProcessGrid, platform: Platform, *, draw_weights: bool = True
) -> tuple[list[DistributedDataParallel], MegatronOptimizer]:
    """This rank's model chunks and the optimizer over them, ready for steps; collective.

    Args:
        draw_weights: False for a model whose weights have no contents.
    Raises:
        ConfigError: ``optimizer.name`` is no optimizer, or a kernel was asked for that is not there.
    """
    chunks = build_model_chunks(config, grid, platform, draw_weights=draw_weights)
    optimizer = build_optimizer(config, chunks, platform)
    for chunk in chunks:
        chunk.config.grad_scale_func = optimizer.scale_loss
        if config.optimizer.overlap_grad_reduce:
            chunk.config.no_sync_func = [c.no_sync for c in chunks] if len(chunks) > 1 else chunk.no_sync
    return chunks, optimizer
