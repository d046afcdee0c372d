"""Exact parameter counts, matrix by matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megatron_salamandra.config import ModelSection


@dataclass(frozen=True)
class Matrix:
    """One weight of the model under its Megatron-Core name, and how tensor parallelism treats it."""

    name: str
    shape: tuple[int, ...]
    copies: int
    split_by_tensor: bool

    @property
    def size(self) -> int:
        """Elements of one copy."""
        return math.prod(self.shape)

    @property
    def total(self) -> int:
        """Elements of all copies (one per layer for layer weights)."""
        return self.size * self.copies

    def on_rank(self, tensor: int) -> int:
        """Elements of one copy on one tensor-parallel rank."""
        return self.size // tensor if self.split_by_tensor else self.size


@dataclass(frozen=True)
class ParameterCount:
    """Weights of a model by where they are: before, in and after the layers."""

    embedding: Matrix
    layer: tuple[Matrix, ...]
    final_norm: Matrix
    head: Matrix

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """All weights in the order of the forward pass."""
        return (self.embedding, *self.layer, self.final_norm, self.head)

    @property
    def total(self) -> int:
        """Parameters of the model."""
        return sum(matrix.total for matrix in self.matrices)

    @property
    def vocabulary(self) -> int:
        """Parameters of the embedding and the head together."""
        return self.embedding.total + self.head.total

    @property
    def per_layer(self) -> int:
        """Parameters of one layer, norms included."""
        return sum(matrix.size for matrix in self.layer)

    @property
    def multiplied_per_layer(self) -> int:
        """Parameters of one layer that take part in matrix products; norms do not."""
        return sum(matrix.size for matrix in self.layer if len(matrix.shape) == 2)


def count_parameters(model: ModelSection) -> ParameterCount:
    """Every weight of ``model``. The published models give 2,253,490,176, 7,768,117,248 and 40,433,885,184."""
    hidden, ffn, layers, vocab = model.hidden_size, model.ffn_hidden_size, model.layers, model.vocab_size
    packed_qkv = (model.attention_heads + 2 * model.groups) * model.head_dim
    layer = (
        Matrix("input_layernorm", (hidden,), layers, False),
        Matrix("self_attention.linear_qkv", (packed_qkv, hidden), layers, True),
        Matrix("self_attention.linear_proj", (hidden, hidden), layers, True),
        Matrix("pre_mlp_layernorm", (hidden,), layers, False),
        Matrix("mlp.linear_fc1", (2 * ffn, hidden), layers, True),
        Matrix("mlp.linear_fc2", (hidden, ffn), layers, True),
    )
    return ParameterCount(
        embedding=Matrix("embedding.word_embeddings", (vocab, hidden), 1, True),
        layer=layer,
        final_norm=Matrix("decoder.final_layernorm", (hidden,), 1, False),
        head=Matrix("output_layer", (vocab, hidden), 1, True),
    )
