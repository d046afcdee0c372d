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


def initial_weights(overrides: Sequence[str]) -> dict[str, list[float]]:
    """First numbers of every parameter this rank holds, by global name and tensor rank."""
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
                    found[f"{name}@{grid.tensor_rank}"] = parameter.detach().float().flatten().tolist()
            return found
    finally:
        platform.stop()
