"""The table of weights against the model that is built, and against those who read it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from rank_jobs import built_shapes
from rank_pool import RankPool

from megatron_salamandra.config import ModelSection, load_run_config
from megatron_salamandra.planning import count_parameters
from megatron_salamandra.weights import WEIGHTS, Initial, Part, TensorSplit, Weight, weight_of


def expected_shapes(model: ModelSection, tensor: int) -> dict[str, tuple[int, ...]]:
    """What the table says about one tensor-parallel rank of ``tensor``, all layers."""
    shapes = {}
    for weight in WEIGHTS:
        shape = list(weight.shape(model))
        if weight.split is not TensorSplit.WHOLE:
            shape[weight.split.value] //= tensor
        prefix, _, rest = weight.name.partition("decoder.layers.")
        for layer in range(weight.copies(model)):
            name = f"decoder.layers.{layer}.{rest}" if weight.stacked else prefix
            shapes[name] = tuple(shape)
    return shapes


@pytest.mark.parametrize(
    ("preset", "layout"),
    [
        ("tiny", []),
        ("tiny", ["parallel.tensor=2", "parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
        ("salamandra-2b", ["parallel.tensor=1", "parallel.pipeline=1"]),
        ("salamandra-7b", ["parallel.tensor=4", "parallel.pipeline=2", "parallel.pipeline_layout=null"]),
        ("salamandra-40b", []),
    ],
    ids=["tiny", "tiny-TP2xPP2xVPP2", "2b", "7b-TP4xPP2", "40b-as-published"],
)
def test_the_built_model_has_the_names_shapes_and_splits_of_the_table(
    rank_pool: RankPool, preset: str, layout: list[str]
) -> None:
    config = load_run_config(preset, layout)
    (ranks,) = rank_pool.run(1, built_shapes, preset, layout)
    found = [item for rank in ranks for item in rank.items()]
    assert len(found) == len(dict(found))  # no weight on two pipeline ranks
    assert dict(found) == expected_shapes(config.model, config.parallel.tensor)


def test_every_kind_of_weight_is_found_by_the_name_of_a_parameter() -> None:
    assert weight_of("decoder.layers.31.mlp.linear_fc2.weight").initial is Initial.RESIDUAL
    assert weight_of("output_layer.weight").part is Part.HEAD
    for unknown in ("decoder.layers.0.mlp.router.weight", "linear_fc2.weight", "decoder.layers.3"):
        with pytest.raises(ValueError, match=f"no row .* for parameter {unknown}"):
            weight_of(unknown)


def test_a_new_kind_of_weight_is_one_row_for_the_planner() -> None:
    """A low-rank adapter beside the attention output: counted in every layer, split like the matrix beside it."""
    model = load_run_config("salamandra-7b").model
    adapter = Weight(
        name="decoder.layers.self_attention.adapter_down.weight",
        huggingface=("model.layers.{layer}.self_attn.o_proj.lora_A.weight",),
        shape=lambda model: (8, model.hidden_size),
        part=Part.LAYER,
        split=TensorSplit.COLUMNS,
        initial=Initial.NORMAL,
    )
    with_adapter = count_parameters(model, (*WEIGHTS, adapter))
    assert with_adapter.total == count_parameters(model).total + model.layers * 8 * model.hidden_size
    assert with_adapter.matrices[-1].on_rank(4) * 4 == 8 * model.hidden_size
    whole = dataclasses.replace(adapter, split=TensorSplit.WHOLE)
    assert count_parameters(model, (whole,)).matrices[0].on_rank(4) == 8 * model.hidden_size


def test_reading_the_table_does_not_import_torch() -> None:
    code = (
        "import sys, megatron_salamandra.weights, megatron_salamandra.planning; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
