"""The plan of a run: all estimates of this room for one configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron_salamandra.config import Layout, RunConfig
from megatron_salamandra.planning.flops import FlopCount, head_in_layers, training_flops_per_token
from megatron_salamandra.planning.memory import RankMemory, memory_per_rank
from megatron_salamandra.planning.parameters import ParameterCount, count_parameters
from megatron_salamandra.planning.pipeline_balance import (
    StageLoad,
    current_stages,
    stage_loads,
    suggest_pipeline_layout,
)


@dataclass(frozen=True)
class Plan:
    """Everything ``salamandra plan`` shows."""

    config: RunConfig
    layout: Layout
    parameters: ParameterCount
    flops: FlopCount
    stages: list[StageLoad]
    suggested_layout: str | None
    memory: list[RankMemory]

    @property
    def pipeline_bubble(self) -> float:
        """Share of a step in which a pipeline rank waits, for stages of equal work."""
        idle = self.layout.pipeline_parallel_size - 1
        return idle / (self.layout.micro_batches_per_step * self.layout.model_chunks + idle)

    @property
    def stage_imbalance(self) -> float:
        """Work of the busiest stage over the mean; 1 is balanced."""
        work = [load.work_in_layers for load in self.stages]
        return max(work) * len(work) / sum(work)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values. ``parameters`` is the exact count of the model."""
        config, model, length = self.config, self.config.model, self.config.data.sequence_length
        return {
            "model": model.name,
            "parameters": self.parameters.total,
            "parameters_per_layer": self.parameters.per_layer,
            "parameters_vocabulary": self.parameters.vocabulary,
            "matrices": [
                {
                    "name": matrix.name,
                    "shape": list(matrix.shape),
                    "copies": matrix.copies,
                    "total": matrix.total,
                }
                for matrix in self.parameters.matrices
            ],
            "flops_per_token": self.flops.total,
            "head_in_layers_by_weights": head_in_layers(model),
            "head_in_layers_by_flops": head_in_layers(model, length),
            "tokens_per_step": config.tokens_per_step,
            "steps": config.total_steps,
            "tokens": config.total_steps * config.tokens_per_step,
            "flops": config.total_steps * config.tokens_per_step * self.flops.total,
            "layout": {
                "world_size": self.layout.world_size,
                "tensor": self.layout.tensor_parallel_size,
                "pipeline": self.layout.pipeline_parallel_size,
                "virtual_pipeline": self.layout.virtual_pipeline_size,
                "data": self.layout.data_parallel_size,
                "micro_batches_per_step": self.layout.micro_batches_per_step,
                "pipeline_bubble": self.pipeline_bubble,
                "stage_imbalance": self.stage_imbalance,
                "stage_layers": [load.stage.layers for load in self.stages],
                "suggested_pipeline_layout": self.suggested_layout,
            },
            "memory_per_rank": [
                {
                    "pipeline_rank": rank.pipeline_rank,
                    "parameters": rank.parameters,
                    "weights_bytes": rank.weights_bytes,
                    "gradients_bytes": rank.gradients_bytes,
                    "optimizer_bytes": rank.optimizer_bytes,
                    "activations_bytes": rank.activations_bytes,
                    "logits_bytes": rank.logits_bytes,
                    "total_bytes": rank.total_bytes,
                }
                for rank in self.memory
            ],
        }


def make_plan(config: RunConfig, world_size: int | None = None) -> Plan:
    """Estimate everything for ``world_size`` ranks, by default one replica of the model.

    Raises:
        ConfigError: the layout does not fit the ranks or the batch.
    """
    if world_size is None:
        world_size = config.parallel.tensor * config.parallel.pipeline
    layout = config.validate_for_world(world_size)
    stages = current_stages(config.model, config.parallel)
    length = config.data.sequence_length
    return Plan(
        config=config,
        layout=layout,
        parameters=count_parameters(config.model),
        flops=training_flops_per_token(config.model, length),
        stages=stage_loads(config.model, length, stages),
        suggested_layout=suggest_pipeline_layout(config.model, length, config.parallel),
        memory=memory_per_rank(config, layout, stages),
    )
