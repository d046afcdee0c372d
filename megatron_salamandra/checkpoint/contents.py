"""What the tensors of a checkpoint are, as Megatron-Core's sharded state."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.checkpoint.optimizer_pieces import state_in_pieces
from megatron_salamandra.model import unwrap

FP32_STATE_BYTES = 12
"""Of one parameter: master weight and two moments."""
# Megatron-Core adds process groups to the dictionary it is given: hand out copies.
METADATA: dict[str, Any] = {
    # Optimizer state is stored by parameter and position, so that TP, PP and DP may all change.
    "distrib_optim_sharding_type": "fully_reshardable",
    # Layers are stacked into one tensor per kind, so that pipeline stages may change.
    "non_homogeneous_layers": False,
}


def model_key(chunk: int, chunks: int) -> str:
    """Key of a model chunk in the state; tensors are named by layer, not by chunk."""
    return "model" if chunks == 1 else f"model{chunk}"


def sharded_state(
    chunks: list[DistributedDataParallel], optimizer: MegatronOptimizer | None, *, loading: bool
) -> dict[str, Any]:
    """Model and optimizer as sharded tensors of this rank.

    Args:
        optimizer: None leaves it out (weights only).
        loading: True if the state describes what to load, False if what to save.
    """
    state: dict[str, Any] = {
        model_key(number, len(chunks)): unwrap(chunk).sharded_state_dict(metadata=dict(METADATA))
        for number, chunk in enumerate(chunks)
    }
    if optimizer is not None:
        pieces = None if loading else state_in_pieces(optimizer, state)
        state["optimizer"] = pieces or optimizer.sharded_state_dict(
            state, is_loading=loading, metadata=dict(METADATA)
        )
    return state


def bytes_of_state(chunks: list[DistributedDataParallel]) -> int:
    """Size of weights, fp32 master weights and both moments over all ranks; collective."""
    mine = 0
    for chunk in chunks:
        for parameter in chunk.parameters():
            split = getattr(parameter, "tensor_model_parallel", False)
            if split or parallel_state.get_tensor_model_parallel_rank() == 0:
                mine += parameter.numel() * (parameter.element_size() + FP32_STATE_BYTES)
    total = torch.tensor([mine], dtype=torch.int64, device=torch.cuda.current_device())
    # Pipeline stages and tensor ranks hold different parameters, data-parallel ranks the same.
    dist.all_reduce(total, group=parallel_state.get_model_parallel_group())
    return int(total.item())
