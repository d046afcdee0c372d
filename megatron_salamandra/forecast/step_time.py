"""Seconds of an optimizer step, by what they are spent on.

A roofline of the busiest pipeline rank: its products, attention, head and other kernels, what of communication nothing
hides, the wait of the pipeline, the optimizer, and a fixed cost.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from megatron_salamandra.forecast.compute import head_seconds, layer_seconds
from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.forecast.rates import Rates
from megatron_salamandra.forecast.schedule import Timing, pipeline_seconds
from megatron_salamandra.forecast.workload import Stage, Workload

_COMPUTE = ("matrices", "attention", "head", "elementwise", "recompute", "tensor", "context")


@dataclass(frozen=True)
class StepSeconds:
    """Of the pipeline rank with the most work.

    Attributes:
        head: products of head and loss.
        elementwise: norms, residuals, rotation, activation, casts.
        recompute: of what backward computes again.
        tensor: communication between tensor-parallel ranks that is not hidden.
        context: the same between context-parallel ranks.
        pipeline: waiting for other stages, and messages between them.
        data: reducing gradients and gathering weights, as far as it is not hidden.
        optimizer: reading and writing gradients, masters, moments and weights.
        fixed: everything that does not depend on the layout.
    """

    matrices: float
    attention: float
    head: float
    elementwise: float
    recompute: float
    tensor: float
    context: float
    pipeline: float
    data: float
    optimizer: float
    fixed: float

    @property
    def total(self) -> float:
        """The whole step."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Name and seconds of each part."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def step_seconds(work: Workload, machine: Machine, rates: Rates) -> StepSeconds:
    """Time of one step of ``work`` on ``machine``.

    Raises:
        ValueError: micro-batches do not divide by the ranks of an interleaved pipeline.
    """
    busiest = _busiest_rank(work, machine, rates)
    if work.pipeline == 1:
        return busiest
    whole = pipeline_seconds(stage_timing(work, machine, rates), work.pipeline, work.micro_batches)
    own = sum(busiest.parts()[name] for name in _COMPUTE)
    return replace(busiest, pipeline=whole - own)


def _busiest_rank(work: Workload, machine: Machine, rates: Rates) -> StepSeconds:
    """The step of the rank with the most work, if it never waited for others of the pipeline."""
    layer = layer_seconds(work, machine, rates)
    head = head_seconds(work, machine, rates)
    busiest = max(range(work.pipeline), key=lambda rank: _load(work.stages_of(rank), layer.forward, head))
    held = work.stages_of(busiest)
    layers = work.micro_batches * sum(stage.layers for stage in held)
    own_head = work.micro_batches * sum(head) * sum(stage.head for stage in held)
    compute = layers * (layer.forward + layer.backward) + own_head
    last_rank = _load(held, layer.forward, head), _load(held, layer.backward, head[::-1])
    parameters = max(work.parameters_of(rank) for rank in range(work.pipeline))
    memory = machine.memory_gb_s * 1e9 * rates.memory_share
    replicas = work.data * work.context
    sweeps = parameters * rates.gradient_sweep_bytes if work.software.sharding == "optimizer" else 0.0
    return StepSeconds(
        matrices=layers * layer.matrices,
        attention=layers * layer.attention,
        head=own_head,
        elementwise=layers * layer.elementwise,
        recompute=layers * layer.recompute,
        tensor=layers * layer.tensor,
        context=layers * layer.context,
        pipeline=0.0,
        data=_data_seconds(work, machine, rates, parameters, compute, last_rank),
        optimizer=(parameters / replicas * rates.optimizer_bytes + sweeps) / memory,
        fixed=rates.fixed_seconds,
    )


def least_seconds(work: Workload, machine: Machine, rates: Rates) -> float:
    """What a step takes at least: the work of the busiest rank, and the optimizer. Quick, nothing is simulated."""
    return _busiest_rank(work, machine, rates).total


def stage_timing(work: Workload, machine: Machine, rates: Rates) -> Timing:
    """Seconds of every stage of the pipeline for one micro-batch, and of a message that nothing hides."""
    layer = layer_seconds(work, machine, rates)
    head = head_seconds(work, machine, rates)
    return Timing(
        forward=tuple(stage.layers * layer.forward + stage.head * head[0] for stage in work.stages),
        backward=tuple(stage.layers * layer.backward + stage.head * head[1] for stage in work.stages),
        message=0.0 if work.software.overlap_messages else _message_seconds(work, machine, rates),
    )


def _load(stages: tuple[Stage, ...], layer: float, head: tuple[float, float]) -> float:
    return sum(stage.layers * layer + stage.head * head[0] for stage in stages)


def _message_seconds(work: Workload, machine: Machine, rates: Rates) -> float:
    """One micro-batch's residual between two stages; the tensor-parallel ranks send a part each."""
    tokens = work.micro_batch * work.sequence / work.context
    inside = work.tensor * work.context * work.pipeline * work.data <= machine.gpus_per_node
    rate = machine.group_gb_s(1, 1 if inside else 2, rates.link_share, rates.network_share)
    return 2 * tokens * work.shape.hidden / work.tensor / (rate * 1e9)


def _data_seconds(
    work: Workload,
    machine: Machine,
    rates: Rates,
    parameters: float,
    compute: float,
    last_micro_batch: tuple[float, float],
) -> float:
    """What reducing gradients and gathering weights adds to a step."""
    replicas = work.data * work.context
    if replicas == 1:
        return 0.0
    software = work.software
    of_node = min(replicas, max(1, machine.gpus_per_node // work.tensor))
    rate = 1e9 * machine.group_gb_s(of_node, -(-replicas // of_node), rates.link_share, rates.network_share)
    share = (replicas - 1) / replicas
    reduce = parameters * software.gradient_bytes * share / rate
    gather = parameters * software.weight_bytes * share / rate
    if software.sharding == "weights":
        # Weights are gathered for both passes of every micro-batch, gradients reduced after each.
        return _exposed(work.micro_batches * (2 * gather + reduce), compute, rates)
    forward, backward = last_micro_batch
    hidden_reduce = _exposed(reduce, backward, rates) if software.overlap_gradients else reduce
    hidden_gather = _exposed(gather, forward, rates) if software.overlap_weights else gather
    return hidden_reduce + hidden_gather


def _exposed(communication: float, computation: float, rates: Rates) -> float:
    window = computation * rates.overlap_window
    return max(0.0, communication - window) + rates.overlap_cost * min(communication, window)
