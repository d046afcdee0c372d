"""RMSNorm that Megatron-Core's sequence parallelism accepts."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer import TransformerConfig
from torch import Tensor, nn

from salamandra_kernels import rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a plain gain (no bias, no ``1 +``), Zhang & Sennrich 2019.

    Megatron-Core's wrapper of ``torch.nn.RMSNorm`` refuses sequence parallelism, because nobody
    would sum the gain's gradient over the tensor-parallel ranks that each see a part of the
    sequence. The attribute ``weight.sequence_parallel`` asks ``finalize_model_grads`` to do it.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise the last dimension: [s, b, h] in any floating dtype, fp32 arithmetic."""
        return rms_norm(hidden, self.weight, self.eps)
