"""Parameters and FLOPs of the published models."""

from __future__ import annotations

import pytest

from megatron_salamandra.config import load_run_config
from megatron_salamandra.planning import count_parameters, head_in_layers, training_flops_per_token

# Model cards of BSC-LT/salamandra-2b, salamandra-7b and ALIA-40b.
TOTALS = {"salamandra-2b": 2_253_490_176, "salamandra-7b": 7_768_117_248, "salamandra-40b": 40_433_885_184}
EMBEDDINGS = {"salamandra-2b": 524_288_000, "salamandra-7b": 1_048_576_000, "salamandra-40b": 2_097_152_000}


@pytest.mark.parametrize("name", TOTALS)
def test_parameters_are_exactly_those_of_the_model_card(name: str) -> None:
    count = count_parameters(load_run_config(name).model)
    assert count.total == TOTALS[name]
    assert count.head == count.vocabulary - count.head == EMBEDDINGS[name]


@pytest.mark.parametrize("name", [*TOTALS, "tiny"])
def test_matrices_sum_to_the_closed_formula(name: str) -> None:
    model = load_run_config(name).model
    hidden, kv = model.hidden_size, model.groups * model.head_dim
    layer = 2 * hidden**2 + 2 * hidden * kv + 3 * hidden * model.ffn_hidden_size + 2 * hidden
    total = 2 * model.vocab_size * hidden + model.layers * layer + hidden
    assert count_parameters(model).total == total
    assert count_parameters(model).per_layer == layer


@pytest.mark.parametrize("name", ["salamandra-7b", "salamandra-40b"])
def test_tensor_parallel_ranks_share_all_but_the_norms(name: str) -> None:
    model = load_run_config(name).model
    for matrix in count_parameters(model).matrices:
        assert matrix.on_rank(4) * 4 == (matrix.size if len(matrix.shape) == 2 else 4 * matrix.size)


@pytest.mark.parametrize(
    ("name", "gigaflops"), [("salamandra-2b", 12.79), ("salamandra-7b", 46.76), ("salamandra-40b", 239.7)]
)
def test_flops_per_token_count_causal_attention_half_and_the_head(name: str, gigaflops: float) -> None:
    config = load_run_config(name)
    flops = training_flops_per_token(config.model, config.data.sequence_length)
    assert flops.total / 1e9 == pytest.approx(gigaflops, rel=5e-4)


@pytest.mark.parametrize(
    ("name", "layers"), [("salamandra-2b", 10.4), ("salamandra-7b", 5.9), ("salamandra-40b", 2.8)]
)
def test_head_weighs_this_many_layers(name: str, layers: float) -> None:
    model = load_run_config(name).model
    assert head_in_layers(model) == pytest.approx(layers, abs=0.05)
    assert head_in_layers(model, 4096) < layers
