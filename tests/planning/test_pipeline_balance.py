"""Suggested pipeline layouts are valid and as good as any."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.config import ModelSection, ParallelSection, load_run_config, parse_pipeline_layout
from megatron_salamandra.planning import head_in_layers, stage_loads, suggest_pipeline_layout

WINDOW = 128


def model_with(layers: int, vocab_size: int) -> ModelSection:
    return ModelSection(
        name="m",
        layers=layers,
        hidden_size=64,
        ffn_hidden_size=192,
        attention_heads=4,
        vocab_size=vocab_size,
    )


@given(
    layers=st.integers(1, 100),
    vocab_size=st.integers(1, 20_000),
    pipeline=st.integers(2, 16),
    virtual=st.sampled_from([None, 2, 3]),
)
def test_suggestion_holds_every_layer_once(
    layers: int, vocab_size: int, pipeline: int, virtual: int | None
) -> None:
    parallel = ParallelSection(pipeline=pipeline, virtual_pipeline=virtual)
    text = suggest_pipeline_layout(model_with(layers, vocab_size), WINDOW, parallel)
    assert text is not None
    stages = parse_pipeline_layout(text)
    assert len(stages) == pipeline * (virtual or 1)
    assert sum(stage.layers for stage in stages) == layers


@given(layers=st.integers(1, 9), vocab_size=st.integers(1, 5_000), pipeline=st.integers(2, 4))
def test_no_other_split_has_a_smaller_busiest_stage(layers: int, vocab_size: int, pipeline: int) -> None:
    model = model_with(layers, vocab_size)
    head = head_in_layers(model, WINDOW)
    text = suggest_pipeline_layout(model, WINDOW, ParallelSection(pipeline=pipeline))
    assert text is not None
    suggested = max(load.work_in_layers for load in stage_loads(model, WINDOW, parse_pipeline_layout(text)))
    splits = (held for held in itertools.product(range(layers + 1), repeat=pipeline) if sum(held) == layers)
    assert suggested == min(max(*held[:-1], held[-1] + head) for held in splits)


@pytest.mark.parametrize(
    ("name", "pipeline", "virtual"),
    [("salamandra-2b", 4, 1), ("salamandra-7b", 2, 2), ("salamandra-40b", 2, 1), ("salamandra-40b", 8, 3)],
)
def test_suggestion_is_accepted_and_lowers_the_busiest_stage(name: str, pipeline: int, virtual: int) -> None:
    keys = [f"parallel.pipeline={pipeline}", f"parallel.virtual_pipeline={virtual}"]
    plain = load_run_config(name, keys)
    text = suggest_pipeline_layout(plain.model, plain.data.sequence_length, plain.parallel)
    balanced = load_run_config(name, [*keys, f"parallel.pipeline_layout='{text}'"])
    balanced.validate_for_world(balanced.parallel.tensor * pipeline * 4)
    assert text is not None
    each = plain.model.layers / (pipeline * virtual)
    busiest = max(
        load.work_in_layers
        for load in stage_loads(plain.model, plain.data.sequence_length, parse_pipeline_layout(text))
    )
    assert busiest < each + head_in_layers(plain.model, plain.data.sequence_length)


def test_without_pipeline_there_is_nothing_to_suggest() -> None:
    assert suggest_pipeline_layout(model_with(4, 100), WINDOW, ParallelSection()) is None


def test_later_stages_take_the_odd_layers() -> None:
    text = suggest_pipeline_layout(model_with(11, 1), WINDOW, ParallelSection(pipeline=4))
    assert text is not None
    held = [stage.layers for stage in parse_pipeline_layout(text)]
    assert held[:-1] == sorted(held[:-1])
