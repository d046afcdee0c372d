"""The plan of a run: all estimates of this room for one configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from megatron_salamandra.config import Layout, RunConfig, learning_rate_of, rate_spans
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
class PhasePlan:
    """One phase: its length, and the learning rate at its first, highest and last step."""

    name: str
    steps: int
    tokens: int
    batch_size: int
    sequence_length: int
    join: str
    rates: tuple[float, float, float]
    flops: float


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
    phases: tuple[PhasePlan, ...] = ()
    """Empty for a run without phases; ``config`` and all of the above are those of one of them."""
    shown_phase: str = ""
    """Of which phase: the one that needs the most memory."""

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

    def _length(self) -> dict[str, Any]:
        if not self.phases:
            steps, tokens = self.config.total_steps, self.config.total_steps * self.config.tokens_per_step
            return {"steps": steps, "tokens": tokens, "flops": tokens * self.flops.total}
        return {
            "steps": sum(phase.steps for phase in self.phases),
            "tokens": sum(phase.tokens for phase in self.phases),
            "flops": sum(phase.flops for phase in self.phases),
            "phases": [asdict(phase) for phase in self.phases],
            "shown_phase": self.shown_phase,
        }

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
            **self._length(),
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
                    "temporary_bytes": rank.temporary_bytes,
                    "total_bytes": rank.total_bytes,
                }
                for rank in self.memory
            ],
        }


def _phase_plans(config: RunConfig) -> tuple[PhasePlan, ...]:
    found = []
    done = 0
    for number, (name, phase) in enumerate(config.phases.items()):
        part = config.in_phase(number)
        steps, length = part.total_steps, part.data.sequence_length
        tokens = steps * part.tokens_per_step
        first, last = (learning_rate_of(config, step) for step in (done + 1, done + steps))
        # The rate rises to the end of a warm-up and falls from there.
        tops = [span.first_step + span.optimizer.warmup_steps for span in rate_spans(config)]
        inside = [learning_rate_of(config, step) for step in tops if done < step <= done + steps]
        found.append(
            PhasePlan(
                name,
                steps,
                tokens,
                part.training.global_batch_size,
                length,
                phase.learning_rate.join,
                (first, max(first, last, *inside), last),
                float(tokens * training_flops_per_token(part.model, length).total),
            )
        )
        done += steps
    return tuple(found)


def make_plan(config: RunConfig, world_size: int | None = None) -> Plan:
    """Estimate everything for ``world_size`` ranks, by default one replica of the model.

    Raises:
        ConfigError: the layout does not fit the ranks or the batch.
    """
    if world_size is None:
        world_size = config.parallel.tensor * config.parallel.pipeline
    layout = config.validate_for_world(world_size)
    if config.phases:
        plans = [make_plan(config.in_phase(number), world_size) for number in range(len(config.phases))]
        needs = [max(rank.total_bytes for rank in plan.memory) for plan in plans]
        widest = needs.index(max(needs))
        return replace(plans[widest], phases=_phase_plans(config), shown_phase=config.phase_names[widest])
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
