"""SwiGLU as the activation module of Megatron-Core's MLP: ours, and Transformer Engine's."""

from __future__ import annotations

from typing import Any

from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from salamandra_kernels import swiglu


class SwiGLU(MegatronModule):
    """silu(gate) * up on the packed output of the first projection, Shazeer 2020.

    A ``MegatronModule`` without parameters, because ``MLP.sharded_state_dict`` asks every child
    for its sharded state; checkpoint keys stay those of the stock MLP.
    """

    def __init__(self, config: TransformerConfig, **_: Any) -> None:
        super().__init__(config=config)

    def forward(self, gate_up: Tensor) -> Tensor:
        """[..., 2f] (gate first) -> [..., f]."""
        # Linear layers save their input, not their output: nobody else reads gate_up again.
        return swiglu(gate_up, overwrite_input=True)


class TransformerEngineSwiGLU(MegatronModule):
    """The same by Transformer Engine's operation, without the state that it would add to checkpoints."""

    def __init__(self, config: TransformerConfig, **_: Any) -> None:
        super().__init__(config=config)
        from transformer_engine.pytorch import ops

        # In a tuple, so that it is no child: it has no parameters, no sharded state, and an extra state nobody needs.
        self._operation = (ops.SwiGLU(),)

    def forward(self, gate_up: Tensor) -> Tensor:
        """[..., 2f] (gate first) -> [..., f]."""
        out: Tensor = self._operation[0](gate_up)
        return out
