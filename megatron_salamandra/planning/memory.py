"""Memory of each pipeline rank, from shapes: what its tensors take when they take most.

Counted is every tensor that the trainer's own code holds, as ``salamandra rehearse`` sees it; a test holds the two
together. What is no tensor (device context, buffers of NCCL, workspaces inside an operation) and what fragmentation
wastes is the allowance of :mod:`verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_salamandra.config import Layout, PipelineStage, RunConfig
from megatron_salamandra.planning.activations import LayerBytes, element_bytes, head_bytes, layer_bytes
from megatron_salamandra.planning.parameters import count_parameters

_GRADIENT_BYTES = 4  # gradients are summed and reduced in fp32 whatever the precision


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank of one pipeline position at its fullest; equal over tensor and data parallel ranks.

    Attributes:
        activations_bytes: kept from a forward pass for its backward pass.
        logits_bytes: whatever the output layer and the loss make.
        temporary_bytes: gradients of activations, gathered sequences and tables at that moment.
    """

    pipeline_rank: int
    parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    temporary_bytes: int

    @property
    def state_bytes(self) -> int:
        """What is there all the time."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def passing_bytes(self) -> int:
        """What comes and goes with each micro-batch."""
        return self.activations_bytes + self.logits_bytes + self.temporary_bytes

    @property
    def total_bytes(self) -> int:
        """All tensors."""
        return self.state_bytes + self.passing_bytes

    @property
    def largest(self) -> tuple[str, int]:
        """Name and bytes of the largest part."""
        parts = {
            "weights": self.weights_bytes,
            "gradients": self.gradients_bytes,
            "optimizer state": self.optimizer_bytes,
            "activations": self.activations_bytes,
            "logits": self.logits_bytes,
            "temporary tensors": self.temporary_bytes,
        }
        name = max(parts, key=lambda part: parts[part])
        return name, parts[name]


def memory_per_rank(config: RunConfig, layout: Layout, stages: Sequence[PipelineStage]) -> list[RankMemory]:
    """One entry per pipeline rank, first to last; ``config`` is of one phase."""
    return [
        _rank_memory(config, layout, rank, stages[rank :: layout.pipeline_parallel_size])
        for rank in range(layout.pipeline_parallel_size)
    ]


def _rank_memory(config: RunConfig, layout: Layout, rank: int, chunks: Sequence[PipelineStage]) -> RankMemory:
    count = count_parameters(config.model)
    parameters = sum(count.on_rank(chunk, layout.tensor_parallel_size) for chunk in chunks)
    # Two fp32 moments; with bf16 weights also an fp32 master copy.
    state_bytes = parameters * (12 if config.precision == "bf16" else 8)
    has_head = any(chunk.head for chunk in chunks)
    layer = layer_bytes(config)
    norm, head = head_bytes(config) if has_head else (0, 0)
    held = _held(config, layout, rank, chunks, layer)
    return RankMemory(
        pipeline_rank=rank,
        parameters=parameters,
        weights_bytes=parameters * element_bytes(config),
        gradients_bytes=parameters * _GRADIENT_BYTES,
        optimizer_bytes=-(-state_bytes // layout.data_parallel_size),
        # Where there is a head, its backward pass is the widest moment; elsewhere that of the last layer.
        activations_bytes=held + norm + (layer.again if not has_head else 0),
        logits_bytes=head,
        temporary_bytes=_messages(layout, rank, layer) + (layer.working if not has_head else 0),
    )


def chunks_in_flight(layout: Layout, rank: int) -> int:
    """Micro-batches times chunks whose activations wait for backward on pipeline rank ``rank``, at most.

    One forward one backward: the ranks after this one, and this one. Interleaved: Megatron-Core's warm-up
    of 2 per rank after this one, plus a round of the pipeline for each chunk but the last.
    """
    after = layout.pipeline_parallel_size - rank - 1
    chunks = layout.model_chunks
    if chunks == 1:
        return min(layout.micro_batches_per_step, after + 1)
    warmup = 2 * after + (chunks - 1) * layout.pipeline_parallel_size
    return min(layout.micro_batches_per_step * chunks, warmup + 1)


def _held(
    config: RunConfig, layout: Layout, rank: int, chunks: Sequence[PipelineStage], layer: LayerBytes
) -> int:
    """Activations of all micro-batches in flight; warm-up goes through the chunks round by round."""
    flight = chunks_in_flight(layout, rank)
    stages, count = layout.pipeline_parallel_size, len(chunks)
    order = [chunks[number % (stages * count) // stages] for number in range(flight)] if count > 1 else []
    layers = sum(chunk.layers for chunk in order) if order else flight * chunks[0].layers
    sent = 0 if stages == 1 else flight * layer.residual
    if stages > 1 and count == 1 and chunks[0].head:
        sent = 0  # the last stage sends nothing on
    return layers * layer.kept + sent


def _messages(layout: Layout, rank: int, layer: LayerBytes) -> int:
    """What arrives from other stages while a micro-batch runs; an interleaved pipeline asks for it ahead."""
    if layout.pipeline_parallel_size == 1:
        return 0
    if layout.model_chunks > 1:
        return 3 * layer.residual
    return layer.residual if rank else 0
