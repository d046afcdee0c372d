"""Memory per rank: what must add up, and what must shrink."""

from __future__ import annotations

import pytest

from megatron_salamandra.config import load_run_config
from megatron_salamandra.planning import count_parameters, make_plan
from megatron_salamandra.planning.memory import chunks_in_flight


@pytest.mark.parametrize(
    "overrides",
    [
        ["parallel.tensor=1", "parallel.sequence=false"],
        ["parallel.pipeline=4"],
        ["parallel.pipeline=2", "parallel.virtual_pipeline=4"],
        ["parallel.pipeline=2", "parallel.pipeline_layout='Et*19|t*13L'"],
    ],
)
def test_ranks_of_one_replica_hold_the_model_once_but_for_replicated_norms(overrides: list[str]) -> None:
    config = load_run_config("salamandra-7b", overrides)
    plan = make_plan(config)
    tensor = config.parallel.tensor
    norms = (2 * config.model.layers + 1) * config.model.hidden_size
    held = sum(rank.parameters for rank in plan.memory) * tensor
    assert held == count_parameters(config.model).total + (tensor - 1) * norms


def test_bytes_per_parameter_are_those_of_mixed_precision_adam() -> None:
    rank = make_plan(load_run_config("salamandra-2b"), 1).memory[0]
    assert rank.weights_bytes == 2 * rank.parameters
    assert rank.gradients_bytes == 4 * rank.parameters
    assert rank.optimizer_bytes == 12 * rank.parameters
    assert rank.logits_bytes == pytest.approx(8192 * 256000 * 2, rel=0.05)
    whole = make_plan(load_run_config("salamandra-2b", ["precision=fp32"]), 1).memory[0]
    assert (whole.weights_bytes, whole.optimizer_bytes) == (4 * rank.parameters, 8 * rank.parameters)


def test_only_optimizer_state_shrinks_with_data_parallelism() -> None:
    config = load_run_config("salamandra-2b")
    one, many = make_plan(config, 1).memory[0], make_plan(config, 256).memory[0]
    assert many.optimizer_bytes == one.optimizer_bytes // 256
    assert (many.weights_bytes, many.activations_bytes) == (one.weights_bytes, one.activations_bytes)


def test_recompute_and_sequence_parallelism_shrink_activations() -> None:
    def activations(*overrides: str) -> int:
        return make_plan(load_run_config("salamandra-7b", overrides)).memory[0].activations_bytes

    assert activations("training.recompute=full") < activations() / 3
    assert activations() < activations("parallel.sequence=false")
    assert activations("training.recompute=none") == activations()  # scores are never kept


def test_logits_are_on_the_last_stage_only() -> None:
    memory = make_plan(load_run_config("salamandra-40b")).memory
    assert [rank.logits_bytes > 0 for rank in memory] == [False, True]


def test_a_chunked_head_holds_a_chunk_of_logits_and_the_unfused_loss_holds_them_in_fp32() -> None:
    def logits(*overrides: str) -> int:
        return make_plan(load_run_config("salamandra-2b", overrides)).memory[0].logits_bytes

    whole, chunk = 8192 * 256000 * 2, 2048 * 256000 * 2
    assert logits() - logits("kernels.loss_chunk_tokens=2048") == whole - chunk
    assert logits("kernels.loss_chunk_tokens=16384") == logits()
    assert logits("kernels.loss=reference") == 3 * whole


def test_first_ranks_hold_more_micro_batches_in_flight() -> None:
    config = load_run_config("salamandra-40b", ["parallel.pipeline=4"])
    layout = config.validate_for_world(16)
    assert [chunks_in_flight(layout, rank) for rank in range(4)] == [4, 3, 2, 1]
    interleaved = load_run_config("salamandra-40b", ["parallel.pipeline=4", "parallel.virtual_pipeline=2"])
    layout = interleaved.validate_for_world(16)
    assert [chunks_in_flight(layout, rank) for rank in range(4)] == [11, 9, 7, 5]


def test_bubble_of_one_forward_one_backward() -> None:
    plan = make_plan(load_run_config("salamandra-40b"), 1024)
    assert plan.pipeline_bubble == pytest.approx(1 / 9)
    assert make_plan(load_run_config("salamandra-2b")).pipeline_bubble == 0
