"""The table of names and the layout of fused tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from megatron_salamandra.config import ModelSection, RunConfig, load_run_config
from megatron_salamandra.hf.mapping import (
    huggingface_shapes,
    join_qkv,
    megatron_shapes,
    placements,
    split_gate_up,
    split_qkv,
    stack_from_huggingface,
)
from megatron_salamandra.weights import WEIGHTS

ConfigMaker = Callable[..., RunConfig]


@pytest.mark.parametrize("query_groups", [1, 2, 4])
def test_qkv_rows_are_queries_then_key_then_value_within_each_group(
    small_config: ConfigMaker, query_groups: int
) -> None:
    model = small_config(query_groups=query_groups).model
    rows = []
    for group in range(query_groups):
        heads = range(group * 4 // query_groups, (group + 1) * 4 // query_groups)
        rows += [("q", head, d) for head in heads for d in range(8)]
        rows += [("k", group, d) for d in range(8)]
        rows += [("v", group, d) for d in range(8)]
    names = sorted(set(rows))
    fused = torch.tensor([[float(names.index(row))] * 32 for row in rows])
    parts = split_qkv(fused, model)
    for part, letter, heads in zip(parts, "qkv", (4, query_groups, query_groups), strict=True):
        found = [names[int(value)] for value in part[:, 0]]
        assert found == [(letter, head, d) for head in range(heads) for d in range(8)]
    assert torch.equal(join_qkv(parts, model), fused)


def test_gate_rows_come_before_up_rows(small_config: ConfigMaker) -> None:
    model = small_config().model
    gate, up = split_gate_up(torch.arange(96.0)[:, None].expand(96, 32), model)
    assert gate[:, 0].tolist() == list(range(48))
    assert up[:, 0].tolist() == list(range(48, 96))


@pytest.mark.parametrize("query_groups", [1, 2, 4])
def test_to_huggingface_and_back_changes_nothing(small_config: ConfigMaker, query_groups: int) -> None:
    model = small_config(query_groups=query_groups).model
    stacked = {key: torch.randn(shape) for key, shape in megatron_shapes(model).items()}
    state = {}
    for placement in placements(model):
        whole = stacked[placement.weight.name]
        state.update(
            placement.to_huggingface(whole if placement.layer is None else whole[placement.layer], model)
        )
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == huggingface_shapes(model)
    for weight in WEIGHTS:
        assert torch.equal(stack_from_huggingface(weight, state, model), stacked[weight.name])


@pytest.mark.parametrize("query_groups", [2, 4])
def test_names_and_shapes_are_exactly_those_of_llama(small_config: ConfigMaker, query_groups: int) -> None:
    transformers = pytest.importorskip("transformers")
    from megatron_salamandra.hf.model_files import llama_settings
    from megatron_salamandra.hf.sentencepiece_model import SpecialIds

    model = small_config(query_groups=query_groups).model
    settings = llama_settings(model, 64, torch.float32, SpecialIds(0, 1, 2, 3))
    with torch.device("meta"):
        llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    assert {name: tuple(p.shape) for name, p in llama.state_dict().items()} == huggingface_shapes(model)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("salamandra-2b", 2_253_490_176),
        ("salamandra-7b", 7_768_117_248),
        ("salamandra-40b", 40_433_885_184),
    ],
)
def test_published_parameter_counts(preset: str, published: int) -> None:
    model: ModelSection = load_run_config(preset, []).model
    assert sum(torch.Size(shape).numel() for shape in huggingface_shapes(model).values()) == published
    assert sum(torch.Size(shape).numel() for shape in megatron_shapes(model).values()) == published
