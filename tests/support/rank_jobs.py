"""Jobs for the rank pool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

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
