"""The output layer that computes the loss itself, a chunk of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from megatron.core.tensor_parallel import ColumnParallelLinear
from torch import Tensor

from salamandra_kernels import chunked_linear_cross_entropy


@dataclass(frozen=True)
class _Targets:
    labels_SB: Tensor
    weights_SB: Tensor | None
    z_loss: float


class LossHead(ColumnParallelLinear):
    """Megatron-Core's output layer; inside :meth:`with_targets` its output is the loss, not the logits.

    The loss is computed in ``forward``, because with overlapped gathering of parameters the hooks of this very
    module are what makes the weight complete.
    """

    def __init__(self, *args: Any, chunk_tokens: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chunk_tokens = chunk_tokens
        self._targets: _Targets | None = None

    @contextmanager
    def with_targets(self, labels_BS: Tensor, weights_BS: Tensor | None, z_loss: float) -> Iterator[None]:
        """Make ``forward`` give the loss of these labels.

        Args:
            labels_BS: [b, s] int64.
            weights_BS: [b, s], weight of each token in the sum that backward starts from; None: all 1.
            z_loss: factor of the squared log-normaliser.
        """
        weights_SB = None if weights_BS is None else weights_BS.transpose(0, 1).contiguous()
        self._targets = _Targets(labels_BS.transpose(0, 1).contiguous(), weights_SB, z_loss)
        try:
            yield
        finally:
            self._targets = None

    def forward(self, hidden_SBH: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """[s, b, h] -> loss [s, b] fp32 with targets, else logits [s, b, V / tp]."""
        if self._targets is None:
            return super().forward(hidden_SBH, *args, **kwargs)  # type: ignore[no-any-return]
        loss_SB = chunked_linear_cross_entropy(
            hidden_SBH,
            self.weight,
            self._targets.labels_SB,
            token_weights=self._targets.weights_SB,
            tp_group=self.tp_group,
            sequence_parallel=self.sequence_parallel,
            z_loss=self._targets.z_loss,
            chunk_tokens=self.chunk_tokens,
        )
        return loss_SB, None
