"""Ranks that do not say the same to each other, jobs that do not fit, and code that fails: each is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from rank_jobs import SMALL_CONFIG

from megatron_salamandra.cli import main
from megatron_salamandra.config import load_run_config
from megatron_salamandra.rehearsal import RehearsalError, rehearse
from megatron_salamandra.rehearsal.matching import find_mismatches
from megatron_salamandra.rehearsal.one_rank import rehearse_rank
from megatron_salamandra.training import train_step

SMALL = str(SMALL_CONFIG)


def reduce_and(more: Callable[[], object]) -> Any:
    """In the place of Megatron-Core's reduction of gradients: that, and something more."""
    real = train_step.finalize_model_grads

    def reduce(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        more()

    return mock.patch.object(train_step, "finalize_model_grads", reduce)


def test_a_collective_that_only_some_ranks_of_a_group_call_names_them_and_the_place() -> None:
    def alone() -> None:
        if dist.get_rank() == 0:
            dist.all_reduce(torch.zeros(3), group=parallel_state.get_tensor_model_parallel_group())

    with reduce_and(alone):
        found = rehearse(load_run_config(SMALL, ["parallel.tensor=2"]), 2)
    (problem,) = found.problems
    assert "rank 0 and rank 1 do not agree on the group TENSOR_MODEL_PARALLEL_GROUP (2 ranks)" in problem
    assert "all-reduce of 12 bytes float32 in reduce" in problem
    assert "rank 1: never comes" in problem
    assert "megatron_salamandra/training/train_step.py" in problem  # who called what was put in its place


def test_collectives_of_two_groups_in_another_order_would_hang() -> None:
    def crossed() -> None:
        groups = [
            parallel_state.get_tensor_model_parallel_group(),
            parallel_state.get_data_parallel_group(),
        ]
        # Each waits for a neighbour that waits for the next one.
        for group in groups if dist.get_rank() in (0, 3) else reversed(groups):
            dist.all_reduce(torch.zeros(3), group=group)

    config = load_run_config(SMALL, ["parallel.tensor=2"])
    with reduce_and(crossed):
        found = rehearse(config, 4, "all")
    (problem,) = found.problems
    assert problem.startswith("ranks 0, 1, 2, 3 wait for each other and would hang")
    assert rehearse(config, 4, "all").problems == ()


def test_stages_of_different_layouts_do_not_understand_each_other() -> None:
    overrides = ["parallel.pipeline=2"]
    one = load_run_config(SMALL, overrides)
    other = load_run_config(SMALL, [*overrides, "data.sequence_length=32"])
    layout = one.validate_for_world(2)
    said = {
        0: rehearse_rank(one, 2, 4, 0).calls,
        1: rehearse_rank(other, 2, 4, 1).calls,
    }
    sent, taken = find_mismatches(said, layout)
    assert sent.startswith("rank 0 and rank 1 do not agree on messages from 0 to 1, call 1 of a step")
    assert "send of 16,384 bytes float32" in sent
    assert "receive of 8,192 bytes float32" in sent
    assert "messages from 1 to 0" in taken


def test_a_stage_that_does_not_fit_is_named_with_its_largest_part() -> None:
    config = load_run_config(SMALL, ["parallel.pipeline=2", "model.vocab_size=4096"])
    need = {rank.rank: rank.peak.total_bytes / 2**30 for rank in rehearse(config, 2).ranks}
    between = sum(need.values()) / 2
    found = rehearse(config, 2, gpu_memory_gib=between)
    fullest = max(need, key=lambda rank: need[rank])
    (problem,) = found.problems
    assert problem.startswith(f"rank {fullest} (stage {fullest}) needs {need[fullest]:.2f} GiB in ")
    assert "the largest part is optimizer" in problem


def test_a_failure_in_the_code_of_a_rank_says_which_rank_and_where() -> None:
    def fail() -> None:
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    with (
        reduce_and(fail),
        pytest.raises(RehearsalError, match=r"rank 0 \(stage 0\) fails in reduce of step 1"),
    ):
        rehearse(load_run_config(SMALL, []), 1)


def test_the_command_writes_json_and_ends_with_code_2_if_the_job_would_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rehearsal.json"
    words = ["rehearse", SMALL, "--world-size", "2", "--workers", "1", "--json", str(file)]
    assert main([*words, "--gpu-memory-gib", "80"]) == 0
    printed = capsys.readouterr()
    assert "peak of a step, GiB of tensors" in printed.out
    found = json.loads(file.read_text())
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1]
    assert found["ranks"][0]["peak_bytes"] == max(p["total_bytes"] for p in found["ranks"][0]["peaks"])
    assert main([*words, "--gpu-memory-gib", "0.0001"]) == 2
    assert "rank 0 (stage 0) needs" in capsys.readouterr().err
    assert main(["rehearse", SMALL, "--world-size", "2", "--ranks", "7"]) == 2
    assert "there are ranks 0 to 1" in capsys.readouterr().err
