"""A run configuration as a workload."""

from __future__ import annotations

from megatron_salamandra.config import Layout, RunConfig
from megatron_salamandra.forecast.workload import ModelShape, Recompute, Software, Stage, Workload
from megatron_salamandra.planning import current_stages

# Read and written for each logit, forward and backward: in place by our kernel; fp32 gradient of Transformer Engine;
# Megatron-Core's fp32 logits, their maximum, exponentials, sum and gradient, a kernel each.
_LOSS_BYTES = {"fused": 6.0, "transformer_engine": 14.0, "reference": 40.0}

RECOMPUTE = {
    "none": Recompute(),
    "norms": Recompute(norms=1.0),
    "activation": Recompute(activation=1.0),
    "norms_and_activation": Recompute(norms=1.0, activation=1.0),
    "selective": Recompute(attention=1.0),
    "full": Recompute(matrices=1.0, attention=1.0, norms=1.0, activation=1.0, others=1.0),
}
"""What backward computes again, by the values of ``training.recompute``."""


def workload_of(config: RunConfig, layout: Layout) -> Workload:
    """One step of ``config``, which is of one phase, in ``layout``."""
    model, training = config.model, config.training
    return Workload(
        shape=ModelShape(
            layers=model.layers,
            hidden=model.hidden_size,
            ffn=model.ffn_hidden_size,
            heads=model.attention_heads,
            groups=model.groups,
            head_dim=model.head_dim,
            vocabulary=model.vocab_size,
        ),
        software=_software(config),
        sequence=config.data.sequence_length,
        micro_batch=training.micro_batch_size,
        micro_batches=layout.micro_batches_per_step,
        tensor=layout.tensor_parallel_size,
        pipeline=layout.pipeline_parallel_size,
        context=1,
        data=layout.data_parallel_size,
        stages=tuple(
            Stage(stage.layers, stage.embedding, stage.head)
            for stage in current_stages(model, config.parallel)
        ),
        split_residual=config.parallel.sequence,
    )


def _software(config: RunConfig) -> Software:
    kernels, training = config.kernels, config.training
    unfused = "reference" in (kernels.rope, kernels.swiglu)
    tokens = training.micro_batch_size * config.data.sequence_length
    chunk = kernels.loss_chunk_tokens
    return Software(
        elementwise="eager" if unfused else "fused",
        loss_bytes=_LOSS_BYTES[kernels.loss],
        loss_passes=0 if chunk is None else -(-tokens // chunk) - 1,
        overlap_gradients=config.optimizer.overlap_grad_reduce,
        overlap_weights=config.optimizer.overlap_param_gather,
        overlap_messages=config.parallel.virtual_pipeline is not None,
        recompute=RECOMPUTE[training.recompute],
    )
