"""Layouts of a configuration on so many GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from megatron_salamandra.config import Layout, ParallelSection, RunConfig, TrainingSection
from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.planning import suggest_pipeline_layout

_MOST_TENSOR = 8
_MOST_CHUNKS = 8
_MICRO_BATCHES = (1, 2, 4, 8)
_WITHOUT_USE = ("selective",)
"""Values of ``training.recompute`` that cost time and save nothing."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that differs from the one asked about in its layout alone.

    Attributes:
        config: of one phase; not yet checked as a whole.
    """

    config: RunConfig
    layout: Layout

    @property
    def keys(self) -> dict[str, Any]:
        """Every key that the search sets, with its value."""
        parallel, training = self.config.parallel, self.config.training
        return {
            "parallel.tensor": parallel.tensor,
            "parallel.sequence": parallel.sequence,
            "parallel.pipeline": parallel.pipeline,
            "parallel.virtual_pipeline": parallel.virtual_pipeline,
            "parallel.pipeline_layout": parallel.pipeline_layout,
            "training.micro_batch_size": training.micro_batch_size,
            "training.recompute": training.recompute,
        }

    def describe(self) -> str:
        """In a few words."""
        training = self.config.training
        balanced = " balanced" if self.config.parallel.pipeline_layout else ""
        return (
            f"{self.layout.describe()}{balanced}, micro-batch {training.micro_batch_size}, "
            f"recompute {training.recompute}"
        )


def candidates(config: RunConfig, machine: Machine, gpus: int) -> Iterator[Candidate]:
    """Every layout whose ranks, batch and layers divide; tensor parallelism stays inside a node.

    Args:
        config: of one phase.
    """
    recomputes = [value for value in _recomputes() if value not in _WITHOUT_USE]
    for parallel in _parallels(config, machine, gpus):
        data = gpus // (parallel.tensor * parallel.pipeline)
        for micro in _MICRO_BATCHES:
            count, rest = divmod(config.training.global_batch_size, micro * data)
            if rest or not count:
                continue
            if parallel.virtual_pipeline is not None and count % parallel.pipeline:
                continue
            layout = Layout(gpus, parallel.tensor, parallel.pipeline, parallel.virtual_pipeline, data, count)
            for recompute in recomputes:
                training = config.training.model_copy(
                    update={"micro_batch_size": micro, "recompute": recompute}
                )
                changed = config.model_copy(update={"parallel": parallel, "training": training})
                yield Candidate(changed, layout)


def _recomputes() -> tuple[str, ...]:
    return get_args(TrainingSection.model_fields["recompute"].annotation)


def _parallels(config: RunConfig, machine: Machine, gpus: int) -> Iterator[ParallelSection]:
    for tensor in _powers_of_two(min(_MOST_TENSOR, machine.gpus_per_node)):
        if any(size % tensor for size in _split_sizes(config)) or gpus % tensor:
            continue
        for pipeline in _powers_of_two(min(config.model.layers, gpus // tensor)):
            if gpus % (tensor * pipeline):
                continue
            most = min(_MOST_CHUNKS, config.model.layers // pipeline) if pipeline > 1 else 1
            for chunks in range(1, most + 1):
                yield from _layouts(config, tensor, pipeline, chunks)


def _layouts(config: RunConfig, tensor: int, pipeline: int, chunks: int) -> Iterator[ParallelSection]:
    """Equal stages where they divide, and stages that balance the head where that differs."""
    plain = ParallelSection(tensor=tensor, sequence=tensor > 1, pipeline=pipeline, virtual_pipeline=chunks)
    if config.model.layers % (pipeline * chunks) == 0:
        yield plain
    balanced = suggest_pipeline_layout(config.model, config.data.sequence_length, plain)
    if balanced is not None:
        yield plain.model_copy(update={"pipeline_layout": balanced})


def _split_sizes(config: RunConfig) -> tuple[int, ...]:
    model = config.model
    return (
        model.attention_heads,
        model.groups,
        model.ffn_hidden_size,
        model.vocab_size,
        config.data.sequence_length,
    )


def _powers_of_two(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length())]
