"""Weights that differ between ranks that should hold the same ones: found, named, mended, and never trained on."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_jobs import train_with_flips
from training_runs import TrainingRuns

from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE
from megatron_salamandra.parallel import bit_sums
from megatron_salamandra.parallel.bit_sum import bit_sum
from megatron_salamandra.run_directory import RunDirectory, read_incident
from megatron_salamandra.training.twin_differences import Difference, TwinReport, find_differences, in_words

SHORT = ("training.steps=6", "checkpoint.every_steps=2", "checkpoint.keep_last=null")
ON = ("guard.twins_every=1",)
QKV = "decoder.layers.1.self_attention.linear_qkv.weight"
NORM = "decoder.layers.2.input_layernorm.weight"
Flip = tuple[int, int, str, str, int]


def report(rank: int, **sums: int) -> TwinReport:
    return TwinReport(rank, f"node{rank // 2}", {("", name): value for name, value in sums.items()})


def test_the_minority_is_named_where_there_is_a_majority_and_else_all() -> None:
    assert find_differences([report(0, a=1, b=7), report(1, a=1, b=7)]) == []
    assert find_differences([report(0, a=1, b=7), report(1, a=1, b=8)]) == [Difference("", "b", (0, 1), None)]
    three = [report(0, a=5, b=1), report(1, a=1, b=1), report(2, a=1, b=1)]
    assert find_differences(three) == [Difference("", "a", (0,), 1)]
    assert find_differences([*three, report(3, a=5, b=1)]) == [Difference("", "a", (0, 1, 2, 3), None)]
    assert find_differences([report(0, a=1), report(1, a=2), report(2, a=3)])[0].source is None


def test_weights_of_other_parts_are_no_twins() -> None:
    parts = [TwinReport(rank, "n", {(f"tensor rank {rank % 2}", "w"): rank % 2}) for rank in range(4)]
    assert find_differences(parts) == []


def test_ranks_hosts_and_weights_are_told_and_many_are_counted() -> None:
    reports = [report(rank, **{f"w{n}": int(rank == 2) for n in range(5)}) for rank in range(3)]
    text = in_words(find_differences(reports), reports)
    assert text.startswith("w0 differs from its twins on rank 2 on node1; w1 ") and text.endswith(
        "2 more weights"
    )


@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8]),
    st.integers(1, 300),
    st.integers(0, 7),
    st.data(),
)
def test_every_single_bit_changes_the_sum(dtype: torch.dtype, numel: int, offset: int, data: Any) -> None:
    whole = torch.randint(-100, 100, (numel + offset,), dtype=torch.int8)
    size = dtype.itemsize
    tensor = whole.repeat_interleave(size).view(dtype)[offset:]
    before = int(bit_sum(tensor))
    assert int(bit_sum(tensor.clone())) == before  # wherever it lies in memory
    bits = tensor.view(torch.uint8)
    bits[data.draw(st.integers(0, len(bits) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert int(bit_sum(tensor)) != before


def test_chunks_count_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_salamandra.parallel.bit_sum.CHUNK_BYTES", 64)
    tensor = torch.arange(1000, dtype=torch.float32)
    turned = torch.cat([tensor[16:32], tensor[:16], tensor[32:]])
    assert int(bit_sum(tensor)) != int(bit_sum(turned))
    assert bit_sums([], torch.device("cpu")).tolist() == []


def run_with(runs: TrainingRuns, name: str, ranks: int, *overrides: str, flips: tuple[Flip, ...] = ()) -> int:
    return runs.run_job(partial(train_with_flips, flips=flips), name, ranks, *SHORT, *overrides)


def incidents(runs: TrainingRuns, name: str) -> list[tuple[int, str, str]]:
    """Step, action and reason of each, as the events tell them."""
    found = [event for event in runs.events(name) if event["event"] == "incident"]
    assert {event["incident"] for event in found} <= {"twins"}
    return [(event["step"], event["action"], event["reason"]) for event in found]


def assert_equal_runs(runs: TrainingRuns, name: str, other: str) -> None:
    assert runs.losses(name) == runs.losses(other)
    for step in (2, 4, 6):
        ours, theirs = runs.tensors(name, step), runs.tensors(other, step)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), step


def test_two_twins_are_both_named_and_the_run_goes_back_with_equal_bits(runs: TrainingRuns) -> None:
    assert run_with(runs, "twins-dp2", 2) == EXIT_DONE
    assert run_with(runs, "twins-dp2-on", 2, *ON) == EXIT_DONE
    assert_equal_runs(runs, "twins-dp2-on", "twins-dp2")
    assert incidents(runs, "twins-dp2-on") == []
    # At the end of a step whose weights are saved, and inside one.
    flips = ((1, 4, "after", QKV, 7), (0, 5, "inside", QKV, 1))
    assert run_with(runs, "twins-dp2-flips", 2, *ON, flips=flips) == EXIT_DONE
    assert_equal_runs(runs, "twins-dp2-flips", "twins-dp2")
    found = incidents(runs, "twins-dp2-flips")
    assert [(step, action) for step, action, _ in found] == [(4, "roll_back"), (5, "roll_back")]
    for _, _, reason in found:
        assert f"{QKV} differs between rank 0 on " in reason and "rank 1 on " in reason
    backs = [event["to_step"] for event in runs.events("twins-dp2-flips") if event["event"] == "roll_back"]
    assert backs == [2, 4]


def test_of_three_twins_the_odd_one_is_named_and_mended_where_it_stands(runs: TrainingRuns) -> None:
    batch = "training.global_batch_size=6"
    assert run_with(runs, "twins-dp3", 3, batch) == EXIT_DONE
    flips = ((1, 2, "after", QKV, 30), (2, 5, "inside", NORM, 0))
    assert run_with(runs, "twins-dp3-flips", 3, batch, *ON, flips=flips) == EXIT_DONE
    assert_equal_runs(runs, "twins-dp3-flips", "twins-dp3")
    found = incidents(runs, "twins-dp3-flips")
    assert [(step, action) for step, action, _ in found] == [(2, "restore"), (5, "restore")]
    assert found[0][2].startswith(f"{QKV} differs from its twins on rank 1 on ")
    assert found[1][2].startswith(f"{NORM} differs from its twins on rank 2 on ")
    assert not [event for event in runs.events("twins-dp3-flips") if event["event"] == "roll_back"]
    incident = read_incident(RunDirectory(runs.root / "twins-dp3-flips").incidents, 1)
    assert (incident.kind, incident.action, incident.contents) == ("twins", "restore", [])


def test_norms_have_twins_over_tensor_parallel_ranks_too(runs: TrainingRuns) -> None:
    layout = ("parallel.tensor=2", "parallel.sequence=true")
    assert run_with(runs, "twins-tp2", 4, *layout) == EXIT_DONE
    flips = ((3, 3, "after", NORM, 12), (2, 5, "after", QKV, 12))
    assert run_with(runs, "twins-tp2-flips", 4, *layout, *ON, flips=flips) == EXIT_DONE
    assert_equal_runs(runs, "twins-tp2-flips", "twins-tp2")
    (norm, qkv) = incidents(runs, "twins-tp2-flips")
    assert norm[:2] == (3, "restore") and norm[2].startswith(f"{NORM} differs from its twins on rank 3 on ")
    assert qkv[:2] == (5, "roll_back")
    assert qkv[2].startswith(f"{QKV} (tensor rank 0) differs between rank 0 on ") and "rank 2 on " in qkv[2]


def test_a_master_that_its_weight_no_longer_is_has_the_run_go_back(runs: TrainingRuns) -> None:
    assert run_with(runs, "twins-bf16", 2, "precision=bf16") == EXIT_DONE
    flips = ((1, 4, "master", QKV, 25),)
    assert run_with(runs, "twins-bf16-flips", 2, "precision=bf16", *ON, flips=flips) == EXIT_DONE
    assert_equal_runs(runs, "twins-bf16-flips", "twins-bf16")
    ((step, action, reason),) = incidents(runs, "twins-bf16-flips")
    assert (step, action) == (4, "roll_back")
    assert f"{QKV} on rank 1 on " in reason and "is not what its fp32 master gave" in reason


def test_a_memory_that_flips_again_and_again_ends_the_run_within_the_budget(runs: TrainingRuns) -> None:
    flips = tuple((1, step, "after", QKV, 9) for step in (1, 3, 4, 5))
    name = "twins-budget"
    assert run_with(runs, name, 3, "training.global_batch_size=6", *ON, flips=flips) == EXIT_FAILURE
    assert [action for _, action, _ in incidents(runs, name)] == ["restore", "restore", "restore", "fail"]
    assert "guard.budget" in incidents(runs, name)[-1][2]
    assert run_with(runs, "twins-no-way-back", 2, *ON, flips=((0, 1, "after", QKV, 9),)) == EXIT_FAILURE
    assert "no checkpoint to go back to" in incidents(runs, "twins-no-way-back")[0][2]
