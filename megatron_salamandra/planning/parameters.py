"""Exact parameter counts, matrix by matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from megatron_salamandra.config import ModelSection, PipelineStage
from megatron_salamandra.weights import WEIGHTS, Part, TensorSplit, Weight


@dataclass(frozen=True)
class Matrix:
    """One kind of weight with the shape it has in a model."""

    weight: Weight
    shape: tuple[int, ...]
    copies: int

    @property
    def name(self) -> str:
        """Name of its Megatron-Core module; a layer's without the number of the layer."""
        return self.weight.short_name

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
        return self.size if self.weight.split is TensorSplit.WHOLE else self.size // tensor


@dataclass(frozen=True)
class ParameterCount:
    """Weights of a model, in the order of the forward pass."""

    matrices: tuple[Matrix, ...]

    def of(self, *parts: Part) -> tuple[Matrix, ...]:
        """The weights that are in ``parts`` of the model."""
        return tuple(matrix for matrix in self.matrices if matrix.weight.part in parts)

    @property
    def total(self) -> int:
        """Parameters of the model."""
        return sum(matrix.total for matrix in self.matrices)

    @property
    def head(self) -> int:
        """Parameters of the head."""
        return sum(matrix.total for matrix in self.of(Part.HEAD))

    @property
    def vocabulary(self) -> int:
        """Parameters of the embedding and the head together."""
        return sum(matrix.total for matrix in self.of(Part.EMBEDDING, Part.HEAD))

    @property
    def per_layer(self) -> int:
        """Parameters of one layer, norms included."""
        return sum(matrix.size for matrix in self.of(Part.LAYER))

    @property
    def multiplied_per_layer(self) -> int:
        """Parameters of one layer that take part in matrix products; norms do not."""
        return sum(matrix.size for matrix in self.of(Part.LAYER) if len(matrix.shape) == 2)

    def on_rank(self, stage: PipelineStage, tensor: int) -> int:
        """Parameters of one pipeline stage on one of ``tensor`` tensor-parallel ranks."""
        copies = {
            Part.EMBEDDING: int(stage.embedding),
            Part.LAYER: stage.layers,
            Part.FINAL_NORM: int(stage.head),
            Part.HEAD: int(stage.head),
        }
        return sum(copies[matrix.weight.part] * matrix.on_rank(tensor) for matrix in self.matrices)


def count_parameters(model: ModelSection, table: Iterable[Weight] = WEIGHTS) -> ParameterCount:
    """Every weight of ``model``. The published models give 2,253,490,176, 7,768,117,248 and 40,433,885,184.

    Args:
        table: kinds of weights.
    """
    return ParameterCount(
        tuple(Matrix(weight, weight.shape(model), weight.copies(model)) for weight in table)
    )
