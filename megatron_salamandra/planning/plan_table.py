"""The plan as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from megatron_salamandra.planning.flops import head_in_layers
from megatron_salamandra.planning.plan import Plan

_GIB = 2**30


def render_plan(plan: Plan) -> str:
    """The plan as a page of aligned text."""
    return "\n".join(
        [*_model_lines(plan), "", *_length_lines(plan), "", *_layout_lines(plan), "", *_memory_lines(plan)]
    )


def _model_lines(plan: Plan) -> Iterator[str]:
    yield f"Model {plan.config.model.name}: {plan.parameters.total:,} parameters"
    yield f"  {'weight':<30}{'shape':>18}{'copies':>8}{'parameters':>18}"
    for matrix in plan.parameters.matrices:
        shape = " x ".join(f"{size:,}" for size in matrix.shape)
        yield f"  {matrix.name:<30}{shape:>18}{matrix.copies:>8}{matrix.total:>18,}"
    share = plan.parameters.vocabulary / plan.parameters.total
    yield f"  one layer {plan.parameters.per_layer:,}; embedding and head {share:.1%} of the model"
    by_weights = head_in_layers(plan.config.model)
    by_flops = head_in_layers(plan.config.model, plan.config.data.sequence_length)
    yield f"  the head weighs {by_weights:.1f} layers by weights, {by_flops:.1f} with attention counted"


def _length_lines(plan: Plan) -> Iterator[str]:
    if plan.phases:
        yield from _phase_lines(plan)
        return
    config = plan.config
    tokens = config.total_steps * config.tokens_per_step
    yield (
        f"Length: {config.total_steps:,} steps of {config.tokens_per_step:,} tokens "
        f"({config.training.global_batch_size:,} samples of {config.data.sequence_length:,}) = {tokens:,} tokens"
    )
    yield (
        f"  {plan.flops.total / 1e9:,.4g} GFLOP per token forward and backward, "
        f"{tokens * plan.flops.total:.3g} FLOP in all"
    )


def _phase_lines(plan: Plan) -> Iterator[str]:
    tokens, flops = (sum(getattr(phase, name) for phase in plan.phases) for name in ("tokens", "flops"))
    steps = sum(phase.steps for phase in plan.phases)
    yield f"Length: {steps:,} steps in {len(plan.phases)} phases = {tokens:,} tokens, {flops:.3g} FLOP in all"
    yield (
        f"  {'phase':<20}{'steps':>11}{'tokens':>21}{'batch':>7}{'window':>8}  learning rate at its first, highest and "
        "last step"
    )
    for phase in plan.phases:
        first, highest, last = phase.rates
        yield (
            f"  {phase.name:<20}{phase.steps:>11,}{phase.tokens:>21,}{phase.batch_size:>7,}"
            f"{phase.sequence_length:>8,}  {phase.join}: {first:.2e}, {highest:.2e}, {last:.2e}"
        )
    yield f"Layout and memory are those of the phase {plan.shown_phase}, which needs the most memory"


def _layout_lines(plan: Plan) -> Iterator[str]:
    layout = plan.layout
    yield (
        f"Layout: {layout.describe()} on {layout.world_size:,} ranks, micro-batch "
        f"{plan.config.training.micro_batch_size}, {layout.micro_batches_per_step} micro-batches per step"
    )
    if layout.pipeline_parallel_size == 1:
        return
    work = ", ".join(f"{load.work_in_layers:.1f}" for load in plan.stages)
    yield f"  work of the stages, in layers: {work}; busiest {plan.stage_imbalance:.2f} times the mean"
    yield f"  pipeline bubble {plan.pipeline_bubble:.1%}"
    if plan.suggested_layout != plan.config.parallel.pipeline_layout:
        yield f"  balanced: parallel.pipeline_layout='{plan.suggested_layout}'"


def _memory_lines(plan: Plan) -> Iterator[str]:
    recompute = plan.config.training.recompute
    yield f"Memory per rank in GiB (precision {plan.config.precision}, recompute {recompute}):"
    yield (
        f"  {'pipeline rank':<14}{'parameters':>16}{'weights':>9}{'grads':>9}{'optim':>9}{'activ':>9}"
        f"{'logits':>9}{'other':>9}{'sum':>9}"
    )
    for rank in plan.memory:
        sizes = (
            rank.weights_bytes,
            rank.gradients_bytes,
            rank.optimizer_bytes,
            rank.activations_bytes,
            rank.logits_bytes,
            rank.temporary_bytes,
            rank.total_bytes,
        )
        cells = "".join(f"{size / _GIB:>9.3f}" for size in sizes)
        yield f"  {rank.pipeline_rank:<14}{rank.parameters:>16,}{cells}"
    yield "  not counted: device context, NCCL's buffers, fragmentation (--cluster allows for them)"
