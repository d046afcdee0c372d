"""The one table of the model's weights. Never imports torch.

Public names: :data:`WEIGHTS` (the table), :class:`Weight` (one row), :class:`Part`, :class:`TensorSplit`,
:class:`Initial` and :class:`Packing` (what a row says), :func:`weight_of` (the row of a parameter).
"""

from __future__ import annotations

from megatron_salamandra.weights.table import (
    WEIGHTS,
    Initial,
    Packing,
    Part,
    Shape,
    TensorSplit,
    Weight,
    weight_of,
)

__all__ = ["WEIGHTS", "Initial", "Packing", "Part", "Shape", "TensorSplit", "Weight", "weight_of"]
