"""The shapes at which the kernels are measured: those of the published Salamandra models."""

from __future__ import annotations

import dataclasses

HEAD_DIM = 128
VOCABULARY = 256_000


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """The sizes of one model that decide the shapes of its operations."""

    hidden: int
    ffn: int
    query_groups: int
    q_per_group: int
    """Query heads that share one key and value; 1: multi-head attention."""


MODELS = {
    "2b": ModelShape(hidden=2048, ffn=5440, query_groups=16, q_per_group=1),
    "7b": ModelShape(hidden=4096, ffn=11008, query_groups=8, q_per_group=4),
    "40b": ModelShape(hidden=8192, ffn=24576, query_groups=8, q_per_group=8),
}
