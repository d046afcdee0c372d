"""What one optimizer step computes, apart from whose software computes it.

The published rows of other systems and our own configurations are both written in these terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Attention = Literal["cudnn", "flash2", "triton"]


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder.

    Attributes:
        ffn: width of the MLP, of one projection where it is gated.
        mlp_matrices: 3 for a gated MLP (SwiGLU), 2 for a plain one.
        rotary: whether Q and K are rotated.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int
    mlp_matrices: int = 3
    rotary: bool = True

    @property
    def query(self) -> int:
        """Features of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Features of all key heads; as many again are values."""
        return self.groups * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Weights of the matrices of one layer."""
        attention = 2 * self.hidden * self.query + 2 * self.hidden * self.key
        return attention + self.mlp_matrices * self.hidden * self.ffn

    @property
    def head_parameters(self) -> int:
        """Weights of the head, and of the embedding again."""
        return self.vocabulary * self.hidden

    def flops_per_token(self, sequence: int, *, causal: bool = True) -> int:
        """FLOPs per token, forward and backward; attention in full with ``causal=False``, as many count it."""
        matrices = 6 * (self.layers * self.layer_parameters + self.head_parameters)
        return matrices + (6 if causal else 12) * sequence * self.query * self.layers


@dataclass(frozen=True)
class Recompute:
    """Shares of a layer's forward pass that backward computes once more.

    Attributes:
        others: residuals and rotation.
    """

    matrices: float = 0.0
    attention: float = 0.0
    norms: float = 0.0
    activation: float = 0.0
    others: float = 0.0


@dataclass(frozen=True)
class Software:
    """How the operations are done.

    Attributes:
        fp8: products of the layers in fp8; attention and head stay in bf16.
        elementwise: fused kernels; ``library`` ones with a separate activation; or one kernel an operation, as plain
            PyTorch has them.
        loss_bytes: read and written for each logit by the loss, forward and backward.
        loss_passes: sweeps over the head's gradient that a loss in chunks adds.
        sharding: ``optimizer`` reduces gradients and gathers weights once a step; ``weights`` gathers them for each
            forward and backward pass, and reduces in each micro-batch (FSDP).
        gradient_bytes: of one gradient on the network.
        weight_bytes: of one weight on the network.
        overlap_gradients: whether gradients are reduced during backward.
        overlap_weights: whether weights are gathered during forward.
        tensor_overlap: none; the weight products of backward (Megatron-Core); or every collective cut in pieces that
            overlap products (asynchronous tensor parallelism).
        overlap_messages: whether messages of the pipeline overlap computation.
    """

    fp8: bool = False
    attention: Attention = "cudnn"
    elementwise: Literal["fused", "library", "eager"] = "fused"
    loss_bytes: float = 6.0
    loss_passes: int = 0
    sharding: Literal["optimizer", "weights"] = "optimizer"
    gradient_bytes: int = 4
    weight_bytes: int = 2
    overlap_gradients: bool = True
    overlap_weights: bool = True
    tensor_overlap: Literal["none", "backward", "all"] = "backward"
    overlap_messages: bool = False
    recompute: Recompute = Recompute()


@dataclass(frozen=True)
class Stage:
    """One model chunk: its layers, and whether it has embedding and head."""

    layers: int
    embedding: bool
    head: bool


@dataclass(frozen=True)
class Workload:
    """One step of one layout.

    Attributes:
        micro_batches: of each data-parallel rank in a step.
        stages: model chunks in the order a token passes them; chunk i is on pipeline rank i modulo ``pipeline``.
        split_residual: sequence parallelism: norms and residuals are split over the tensor-parallel ranks.
    """

    shape: ModelShape
    software: Software
    sequence: int
    micro_batch: int
    micro_batches: int
    tensor: int
    pipeline: int
    context: int
    data: int
    stages: tuple[Stage, ...]
    split_residual: bool = True

    @property
    def chunks(self) -> int:
        """Model chunks of each pipeline rank."""
        return len(self.stages) // self.pipeline

    @property
    def gpus(self) -> int:
        """Ranks of the layout."""
        return self.tensor * self.pipeline * self.context * self.data

    @property
    def tokens_per_step(self) -> int:
        """Of all ranks."""
        return self.micro_batch * self.micro_batches * self.data * self.sequence

    def stages_of(self, rank: int) -> tuple[Stage, ...]:
        """Model chunks of one pipeline rank."""
        return self.stages[rank :: self.pipeline]

    def parameters_of(self, rank: int) -> float:
        """Weights of matrices on one rank of that place in the pipeline."""
        held = self.stages_of(rank)
        layers = sum(stage.layers for stage in held)
        vocabulary = sum(stage.embedding + stage.head for stage in held)
        whole = layers * self.shape.layer_parameters + vocabulary * self.shape.head_parameters
        return whole / self.tensor


def even_stages(layers: int, count: int) -> tuple[Stage, ...]:
    """Equal chunks, the first with the embedding and the last with the head; earlier ones take what is over."""
    each, over = divmod(layers, count)
    return tuple(Stage(each + (index < over), index == 0, index == count - 1) for index in range(count))
