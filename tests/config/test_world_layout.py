"""The arithmetic between ranks and batches."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.config import ConfigError, RunConfig

Load = Callable[..., RunConfig]


def config_with(tensor: int, pipeline: int, virtual: int | None, micro: int, batch: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {
                "name": "m",
                "layers": 48,
                "hidden_size": 128,
                "ffn_hidden_size": 128,
                "attention_heads": 16,
                "vocab_size": 256,
            },
            "data": {"sequence_length": 16},
            "parallel": {"tensor": tensor, "pipeline": pipeline, "virtual_pipeline": virtual},
            "training": {"micro_batch_size": micro, "global_batch_size": micro * batch, "steps": 3},
            "optimizer": {"lr": 0.1, "warmup_steps": 0},
        }
    )


@given(
    tensor=st.sampled_from([1, 2, 4, 8, 16]),
    pipeline=st.sampled_from([1, 2, 3, 4]),
    virtual=st.sampled_from([None, 2, 4]),
    micro=st.integers(1, 8),
    batch=st.integers(1, 64),
    world=st.integers(1, 256),
)
def test_layout_multiplies_out_or_is_refused(
    tensor: int, pipeline: int, virtual: int | None, micro: int, batch: int, world: int
) -> None:
    config = config_with(tensor, pipeline, virtual if pipeline > 1 else None, micro, batch)
    data, odd_ranks = divmod(world, tensor * pipeline)
    works = not odd_ranks and data and batch % data == 0
    if works and config.parallel.virtual_pipeline:
        works = batch // data % pipeline == 0
    if not works:
        with pytest.raises(ConfigError, match=r"allowed for .*: "):
            config.validate_for_world(world)
        return
    layout = config.validate_for_world(world)
    assert layout.tensor_parallel_size * layout.pipeline_parallel_size * layout.data_parallel_size == world
    assert micro * layout.data_parallel_size * layout.micro_batches_per_step == micro * batch


def test_what_is_said_to_be_allowed_is_allowed(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("training.global_batch_size=34").validate_for_world(8)
    message = str(caught.value)
    assert "34 = 2 * 16 + 2" in message
    for value in re.findall(r"such as (\d+) or (\d+)", message)[0]:
        load(f"training.global_batch_size={value}").validate_for_world(8)


def test_world_size_that_does_not_divide_shows_the_product(load: Load) -> None:
    with pytest.raises(ConfigError, match="needs a multiple of 4 ranks, but there are 6"):
        load("parallel.tensor=2", "parallel.pipeline=2").validate_for_world(6)


def test_interleaving_needs_whole_rounds_of_micro_batches(load: Load) -> None:
    config = load("parallel.pipeline=4", "parallel.virtual_pipeline=2", "training.global_batch_size=12")
    with pytest.raises(ConfigError, match=r"parallel.pipeline = 4, but there are 6 \(= 12 samples"):
        config.validate_for_world(4)


def test_one_virtual_stage_means_no_interleaving(load: Load) -> None:
    config = load("parallel.virtual_pipeline=1")
    assert config.parallel.virtual_pipeline is None
    assert config.validate_for_world(2).model_chunks == 1


def test_layout_describes_itself(load: Load) -> None:
    config = load("parallel.tensor=2", "parallel.pipeline=2", "parallel.virtual_pipeline=2")
    assert config.validate_for_world(8).describe() == "TP2 PP2 VPP2 DP2"
