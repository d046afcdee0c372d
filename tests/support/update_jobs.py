"""Rank jobs that take optimizer steps by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rank_jobs import SMALL_CONFIG


@contextmanager
def small_model(overrides: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Configuration, grid, model chunks and optimizer of the small model on this rank."""
    from megatron.core.distributed import finalize_model_grads

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_model_chunks
    from megatron_salamandra.optim import build_optimizer
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            chunks = build_model_chunks(config, grid, platform)
            optimizer = build_optimizer(config, chunks, platform)
            for chunk in chunks:
                chunk.config.finalize_model_grads_func = finalize_model_grads
                chunk.config.grad_scale_func = optimizer.scale_loss
            yield config, grid, chunks, optimizer
    finally:
        platform.stop()


def gradients(config: Any, grid: Any, chunks: list[Any], optimizer: Any, step: int) -> float:
    """Forward and backward over random windows of a step; returns this rank's loss."""
    import numpy as np

    from megatron_salamandra.data.micro_batch import micro_batch
    from megatron_salamandra.optim import apply_schedule
    from megatron_salamandra.training.forward_backward import run_micro_batches

    shape = (1, config.data.sequence_length + 1)
    windows = np.random.default_rng([step, grid.data_rank]).integers(0, config.model.vocab_size, shape)
    for chunk in chunks:
        chunk.train()
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    loss = run_micro_batches(chunks, [micro_batch(windows)], config, grid)
    apply_schedule(optimizer, config, step)
    return float(loss.nats)


def optimizer_bits(chunks: list[Any], optimizer: Any) -> list[bytes]:
    """Every bit of weights, master weights and moments that this rank holds."""
    import torch

    def bits(tensor: torch.Tensor) -> bytes:
        return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()

    found = [bits(parameter) for chunk in chunks for parameter in chunk.parameters()]
    for part in optimizer.chained_optimizers:
        for group in part.optimizer.param_groups:
            found.append(repr(group.get("step")).encode())
            for parameter in group["params"]:
                found.append(bits(parameter))
                moments = part.optimizer.state[parameter]
                found += [bits(moments[name]) for name in sorted(moments)]
    return found


def trajectory(overrides: Sequence[str], split: bool) -> tuple[list[float], list[float], list[bytes]]:
    """Losses, norms and final bits of 20 steps, by Megatron-Core's own step or by our two halves."""
    from megatron_salamandra.optim import apply_update, norm_of, ready_gradients

    losses, norms = [], []
    with small_model(overrides) as (config, grid, chunks, optimizer):
        for step in range(1, 21):
            losses.append(gradients(config, grid, chunks, optimizer, step))
            if split:
                norms.append(norm_of(float(ready_gradients(optimizer))))
                apply_update(optimizer, norms[-1])
            else:
                norms.append(float(optimizer.step()[1]))
        return losses, norms, optimizer_bits(chunks, optimizer)


def bits_around_a_left_out_update(overrides: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
    """Bits before and after a step whose second half is left out, three updates after the start."""
    from megatron_salamandra.optim import apply_update, norm_of, ready_gradients

    with small_model(overrides) as (config, grid, chunks, optimizer):
        for step in range(1, 4):
            gradients(config, grid, chunks, optimizer, step)
            apply_update(optimizer, norm_of(float(ready_gradients(optimizer))))
        before = optimizer_bits(chunks, optimizer)
        gradients(config, grid, chunks, optimizer, 4)
        assert ready_gradients(optimizer) > 0
        return before, optimizer_bits(chunks, optimizer)
