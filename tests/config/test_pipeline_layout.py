"""Our reading of layout strings is Megatron-Core's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.config import PipelineStage, parse_pipeline_layout

layout_module = pytest.importorskip("megatron.core.transformer.pipeline_parallel_layer_layout")


def by_megatron_core(text: str) -> list[PipelineStage]:
    rows = layout_module.PipelineParallelLayerLayout.parse_str_to_list(text)
    counted = [[kind.name for kind in row] for row in rows]
    return [PipelineStage("embedding" in row, row.count("decoder"), "loss" in row) for row in counted]


@pytest.mark.parametrize(
    "text",
    ["EttL", "Et*3|(tt|)*29,tL", "E|t*12|t*11L", "Et*2,|(t|t)*2|L", "E(t|tt|)*2L", "Et*10|(t*3|)*2t*4|L"],
)
def test_examples_parse_as_in_megatron_core(text: str) -> None:
    assert parse_pipeline_layout(text) == by_megatron_core(text)


stage = st.integers(0, 13).map(lambda n: "t" * n) | st.integers(1, 13).map(lambda n: f"t*{n}")
group = st.tuples(st.lists(stage, min_size=1, max_size=3), st.integers(1, 4)).map(
    lambda pair: f"({'|'.join(pair[0])}|)*{pair[1]}"
)


@given(st.lists(stage | group, max_size=6), st.sampled_from(["|", ",", ",|", ""]))
def test_any_layout_parses_as_in_megatron_core(pieces: list[str], joint: str) -> None:
    text = f"E{joint.join(pieces)}L"
    assert parse_pipeline_layout(text) == by_megatron_core(text)


@given(st.text("EtL|(),*0123456789m ", max_size=20))
def test_whatever_we_accept_megatron_core_accepts(text: str) -> None:
    try:
        stages = parse_pipeline_layout(text)
    except ValueError:
        return
    assert stages == by_megatron_core(text)


def test_absurd_repetitions_are_refused_before_they_fill_the_memory() -> None:
    with pytest.raises(ValueError, match="unrolls to more than"):
        parse_pipeline_layout("E(t*9999|)*99999999L")
