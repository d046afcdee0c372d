"""Pipeline stages of equal work when the head weighs several layers."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.config import ModelSection, ParallelSection, PipelineStage, parse_pipeline_layout
from megatron_salamandra.planning.flops import head_in_layers


@dataclass(frozen=True)
class StageLoad:
    """One stage (model chunk) and its work, in units of one layer."""

    stage: PipelineStage
    work_in_layers: float


def current_stages(model: ModelSection, parallel: ParallelSection) -> list[PipelineStage]:
    """The stages of a configuration, in the order a token passes them."""
    if parallel.pipeline_layout is not None:
        return parse_pipeline_layout(parallel.pipeline_layout)
    count = parallel.pipeline * (parallel.virtual_pipeline or 1)
    each = model.layers // count
    return [PipelineStage(index == 0, each, index == count - 1) for index in range(count)]


def stage_loads(model: ModelSection, sequence_length: int, stages: list[PipelineStage]) -> list[StageLoad]:
    """Work of each stage: its layers, plus the head counted in layers. The embedding look-up weighs nothing."""
    head = head_in_layers(model, sequence_length)
    return [StageLoad(stage, stage.layers + head * stage.head) for stage in stages]


def suggest_pipeline_layout(
    model: ModelSection, sequence_length: int, parallel: ParallelSection
) -> str | None:
    """Layout string whose largest stage is as small as it can be; None without pipeline parallelism.

    The last stage, which also has the head, gets fewer layers. Where the others cannot be equal, the
    later ones get one layer more, because the first ones hold activations of more micro-batches.
    """
    if parallel.pipeline == 1:
        return None
    count = parallel.pipeline * (parallel.virtual_pipeline or 1)
    head = head_in_layers(model, sequence_length)
    others = count - 1

    def largest_stage(layers_in_last: int) -> float:
        return max(layers_in_last + head, -(-(model.layers - layers_in_last) // others))

    # Of equally good choices take the one with the most layers in the last stage: less work elsewhere.
    last = min(range(model.layers + 1), key=lambda layers: (largest_stage(layers), -layers))
    even, longer = divmod(model.layers - last, others)
    held = [even] * (others - longer) + [even + 1] * longer
    return _layout_string([*held, last])


def _layout_string(layers_held: list[int]) -> str:
    """Compact notation: equal stages in a row become ``(t*n|)*k``."""
    *others, last = layers_held
    text = f"E{_repeat('t', others[0])}|"
    position = 1
    while position < len(others):
        run = 1
        while position + run < len(others) and others[position + run] == others[position]:
            run += 1
        stage = f"{_repeat('t', others[position])}|"
        text += f"({stage})*{run}" if run > 1 else stage
        position += run
    return text + _repeat("t", last) + "L"


def _repeat(letter: str, count: int) -> str:
    return letter * count if count < 2 else f"{letter}*{count}"
