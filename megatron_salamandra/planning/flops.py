"""Model FLOPs of training, the way MFU is usually reported.

A matrix product of m by k with k by n costs 2*m*k*n. Backward costs twice the forward pass, so a weight
that is multiplied costs 6 FLOPs per token. Attention scores and their product with the values cost
2 * 2 * S * hidden per token forward when every position sees every other; a causal mask leaves half:
6 * S * hidden per layer and token over forward and backward. The embedding is a look-up and counts
nothing, norms and activations are not counted, and neither is anything computed twice (recompute).
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.config import ModelSection
from megatron_salamandra.planning.parameters import count_parameters


@dataclass(frozen=True)
class FlopCount:
    """FLOPs per token, forward and backward."""

    layer_matrices: int
    layer_attention: int
    layers: int
    head: int

    @property
    def layer(self) -> int:
        """One layer."""
        return self.layer_matrices + self.layer_attention

    @property
    def total(self) -> int:
        """The whole model."""
        return self.layers * self.layer + self.head


def training_flops_per_token(model: ModelSection, sequence_length: int) -> FlopCount:
    """Model FLOPs per trained token. Salamandra 2B: 12.79e9; 7B: 46.76e9; 40B at 4,096 tokens: 239.7e9."""
    parameters = count_parameters(model)
    return FlopCount(
        layer_matrices=6 * parameters.multiplied_per_layer,
        layer_attention=6 * sequence_length * model.hidden_size,
        layers=model.layers,
        head=6 * parameters.head,
    )


def head_in_layers(model: ModelSection, sequence_length: int = 0) -> float:
    """How many transformer layers the vocabulary head weighs.

    By weights alone (no ``sequence_length``) it is 10.4 for the 2B, 5.9 for the 7B and 2.8 for the 40B;
    with the attention of full windows of that length counted into a layer, the head weighs less.
    """
    flops = training_flops_per_token(model, sequence_length)
    return flops.head / flops.layer
