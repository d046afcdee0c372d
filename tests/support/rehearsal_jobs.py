"""Ranks that do for real what a rehearsal does without contents."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rank_jobs import SMALL_CONFIG

from megatron_salamandra.rehearsal.one_rank import Performance


def perform_for_real(overrides: Sequence[str], micro_batches: int) -> Performance:
    """Build, step and plan a save on this rank, with the same account of memory and calls."""
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform
    from megatron_salamandra.rehearsal.one_rank import perform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            return perform(config, grid, platform, micro_batches, answered=False)
    finally:
        platform.stop()
