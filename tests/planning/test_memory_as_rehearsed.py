"""Memory per rank against the dress rehearsal: the trainer's own code on tensors without contents, every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.config import load_run_config
from megatron_salamandra.planning import make_plan

REHEARSED: dict[str, Any] = json.loads(Path(__file__).with_name("rehearsed.json").read_text())["layouts"]


@pytest.mark.parametrize("name", REHEARSED)
def test_every_rank_needs_what_the_rehearsal_saw_within_3_per_cent(name: str) -> None:
    seen = REHEARSED[name]
    plan = make_plan(load_run_config(seen["preset"], seen["overrides"]), seen["world_size"])
    assert len(plan.memory) == len(seen["peaks"])
    for rank, peak in zip(plan.memory, seen["peaks"], strict=True):
        assert rank.total_bytes == pytest.approx(peak, rel=0.03), f"stage {rank.pipeline_rank}"
