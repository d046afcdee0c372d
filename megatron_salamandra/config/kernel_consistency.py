"""Checks of the kernels that were chosen against what they can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron_salamandra.config.errors import Problem

if TYPE_CHECKING:
    from megatron_salamandra.config.run_config import RunConfig


def kernel_problems(config: RunConfig) -> Iterator[Problem]:
    """Contradictions between ``kernels`` and other keys, and inside ``model.rope_scaling``."""
    kernels, z_loss = config.kernels, config.training.z_loss
    if kernels.loss != "fused" and z_loss > 0:
        yield Problem(
            key="kernels.loss",
            text=f"kernels.loss = {kernels.loss} has no z-loss term, but training.z_loss = {z_loss:g}",
            remedy="use kernels.loss = fused, or set training.z_loss to 0",
            involved=("training.z_loss",),
        )
    if kernels.loss != "fused" and kernels.loss_chunk_tokens is not None:
        yield Problem(
            key="kernels.loss_chunk_tokens",
            text=f"kernels.loss_chunk_tokens = {kernels.loss_chunk_tokens} needs kernels.loss = fused, not "
            f"{kernels.loss}",
            remedy="set it to null, or use kernels.loss = fused",
            involved=("kernels.loss",),
        )
    if kernels.rope != "fused" and config.data.reset_positions:
        yield Problem(
            key="data.reset_positions",
            text=f"data.reset_positions = true needs kernels.rope = fused, not {kernels.rope}",
            remedy="set it to false, or use kernels.rope = fused",
            involved=("kernels.rope",),
        )
    scaling = config.model.rope_scaling
    if scaling is not None and scaling.low_frequency_factor >= scaling.high_frequency_factor:
        yield Problem(
            key="model.rope_scaling.low_frequency_factor",
            text=f"model.rope_scaling.low_frequency_factor = {scaling.low_frequency_factor:g} is not below "
            f"model.rope_scaling.high_frequency_factor = {scaling.high_frequency_factor:g}",
            remedy="Llama 3 uses 1 and 4",
            involved=("model.rope_scaling.high_frequency_factor",),
        )
