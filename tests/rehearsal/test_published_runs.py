"""The published runs at their published size: they fit, every rank agrees with the others, and nothing is missing."""

from __future__ import annotations

import pytest

from megatron_salamandra.config import load_run_config
from megatron_salamandra.planning import count_parameters, make_plan
from megatron_salamandra.rehearsal import rehearse

PUBLISHED = {"salamandra-2b": 256, "salamandra-7b": 512, "salamandra-40b": 1024}


@pytest.mark.rehearsal
@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_runs_fit_on_their_gpus_and_need_what_the_plan_says(preset: str) -> None:
    config = load_run_config(preset)
    world = PUBLISHED[preset]
    stages = config.parallel.pipeline
    size = world // stages
    rehearsal = rehearse(config, world, [stage * size for stage in range(stages)], gpu_memory_gib=64)
    assert rehearsal.problems == ()
    assert [rank.stands_for for rank in rehearsal.ranks] == [size] * stages
    norms = (2 * config.model.layers + 1) * config.model.hidden_size
    held = sum(rank.parameters for rank in rehearsal.ranks) * config.parallel.tensor
    assert held == count_parameters(config.model).total + (config.parallel.tensor - 1) * norms
    for rank, planned in zip(rehearsal.ranks, make_plan(config, world).memory, strict=True):
        assert rank.peak.total_bytes == pytest.approx(planned.total_bytes, rel=0.03)
