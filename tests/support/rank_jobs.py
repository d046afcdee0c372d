"""Jobs for the rank pool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALL_CONFIG = Path(__file__).with_name("small.yaml")


def train(overrides: Sequence[str]) -> int:
    """Train the small model on this rank and return the exit code."""
    from megatron_salamandra.train import main

    return main([str(SMALL_CONFIG), *overrides])


def train_on_a_full_disk(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but syncing a file of tensors fails as it does when the disk is full."""
    import errno
    from unittest import mock

    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".distcp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    # Checkpoint writers are forked from this process and inherit the fault.
    with mock.patch("os.fsync", fsync):
        return train(overrides)


def train_until_nan(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but the loss of step 3 is not a number."""
    from unittest import mock

    from megatron_salamandra.training import trainer
    from megatron_salamandra.training.forward_backward import LossSum

    real, calls = trainer.run_micro_batches, []

    def run_micro_batches(*arguments: Any, **options: Any) -> LossSum:
        calls.append(arguments)
        loss = real(*arguments, **options)
        return LossSum(float("nan"), loss.tokens) if len(calls) == 3 else loss

    with mock.patch.object(trainer, "run_micro_batches", run_micro_batches):
        return train(overrides)


def initial_weights(overrides: Sequence[str]) -> dict[tuple[str, int], list[list[float]]]:
    """Every matrix this rank holds, by global name and tensor rank, as rows."""
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_model_chunks, unwrap
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.parallel.initialization import named_global_parameters
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            found = {}
            for chunk in build_model_chunks(config, grid, platform):
                for name, parameter in named_global_parameters(unwrap(chunk)):
                    found[name, grid.tensor_rank] = (
                        parameter.detach().float().reshape(len(parameter), -1).tolist()
                    )
            return found
    finally:
        platform.stop()


def preset_parameters(preset: str) -> int:
    """Number of parameters of a preset's model, built on the meta device with one rank."""
    import torch

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_chunk, transformer_config
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(preset, ["parallel.tensor=1", "parallel.pipeline=1", "parallel.sequence=false"])
    platform = select_platform("host")
    platform.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, platform), torch.device("meta"):
            chunk = build_chunk(config, transformer_config(config, platform_name=platform.name))
            return sum(parameter.numel() for parameter in chunk.parameters())
    finally:
        platform.stop()


def decay_groups(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the parameters that weight decay applies to, and of those it spares."""
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_model_chunks, unwrap
    from megatron_salamandra.optim import apply_schedule, build_optimizer
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            chunks = build_model_chunks(config, grid, platform)
            optimizer = build_optimizer(config, chunks, platform)
            apply_schedule(optimizer, config, 1)
            decay = {
                size: group["weight_decay"]
                for group in optimizer.param_groups
                for size in {parameter.numel() for parameter in group["params"]}
            }
            names = [(name, p.numel()) for name, p in unwrap(chunks[0]).named_parameters()]
            return [n for n, size in names if decay[size]], [n for n, size in names if not decay[size]]
    finally:
        platform.stop()
