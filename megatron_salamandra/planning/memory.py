"""Memory of each pipeline rank, estimated from shapes.

Counted: weights, fp32 gradients, optimizer state, activations kept for backward, logits. Not counted:
the allocator's slack, communication buffers, temporary tensors inside an operation, and the
context of the device, together commonly 5 to 15 %.

Activations kept per token and layer, in elements, with attention that never stores scores
(t tensor-parallel ranks; the first term divides by t only with sequence parallelism):

    4 * hidden                                        two norms: their inputs and outputs
    + ((heads + 2 * groups) * head_dim + hidden) / t  packed QKV and the attention output
    + 3 * ffn / t                                     gate, up and their product

Full recompute keeps the input of each layer and, while one layer runs backward, that layer's own
activations. Selective recompute runs core attention again; since scores are not stored anyway,
it keeps the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.config import Layout, PipelineStage, RunConfig
from megatron_salamandra.planning.parameters import count_parameters

# Beside the logits themselves. Transformer Engine keeps the gradient in fp32; Megatron-Core fp32 logits, their
# exponentials and the gradient.
_LOSS_BYTES_PER_LOGIT = {"fused": 0, "transformer_engine": 4, "reference": 12}
_GRADIENT_BYTES = 4  # gradients are summed and reduced in fp32 whatever the precision


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank of one pipeline position; equal over tensor and data parallel ranks."""

    pipeline_rank: int
    parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum of what is counted."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
        )


def memory_per_rank(config: RunConfig, layout: Layout, stages: list[PipelineStage]) -> list[RankMemory]:
    """One entry per pipeline rank, first to last."""
    return [
        _rank_memory(config, layout, rank, stages[rank :: layout.pipeline_parallel_size])
        for rank in range(layout.pipeline_parallel_size)
    ]


def _rank_memory(config: RunConfig, layout: Layout, rank: int, chunks: list[PipelineStage]) -> RankMemory:
    tensor = layout.tensor_parallel_size
    element = 2 if config.precision == "bf16" else 4
    count = count_parameters(config.model)
    parameters = sum(count.on_rank(chunk, tensor) for chunk in chunks)
    # Two fp32 moments; with bf16 weights also an fp32 master copy.
    state_bytes = parameters * (12 if config.precision == "bf16" else 8)
    tokens = config.training.micro_batch_size * config.data.sequence_length
    has_head = any(chunk.head for chunk in chunks)
    return RankMemory(
        pipeline_rank=rank,
        parameters=parameters,
        weights_bytes=parameters * element,
        gradients_bytes=parameters * _GRADIENT_BYTES,
        optimizer_bytes=-(-state_bytes // layout.data_parallel_size),
        activations_bytes=_activation_elements(config, layout, rank, chunks) * element,
        logits_bytes=_logits_bytes(config, tokens, tensor, element) if has_head else 0,
    )


def _logits_bytes(config: RunConfig, tokens: int, tensor: int, element: int) -> int:
    at_once = min(tokens, config.kernels.loss_chunk_tokens or tokens)
    return (
        at_once * config.model.vocab_size // tensor * (element + _LOSS_BYTES_PER_LOGIT[config.kernels.loss])
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


def _activation_elements(config: RunConfig, layout: Layout, rank: int, chunks: list[PipelineStage]) -> int:
    model, tensor = config.model, layout.tensor_parallel_size
    split_residual = tensor if config.parallel.sequence else 1
    inside = (model.attention_heads + 2 * model.groups) * model.head_dim + model.hidden_size
    whole_layer = 4 * model.hidden_size // split_residual + (inside + 3 * model.ffn_hidden_size) // tensor
    kept_layer = whole_layer
    working = 0
    if config.training.recompute == "full":
        kept_layer = model.hidden_size // split_residual
        working = whole_layer
    layers = max(chunk.layers for chunk in chunks)
    tokens = config.training.micro_batch_size * config.data.sequence_length
    elements = chunks_in_flight(layout, rank) * layers * kept_layer + (working if layers else 0)
    if any(chunk.head for chunk in chunks):
        elements += 2 * model.hidden_size // split_residual  # input and output of the final norm
    return tokens * elements
