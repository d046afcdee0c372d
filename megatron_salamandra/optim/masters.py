"""Whether the weights of this rank's part are still those that its fp32 masters gave."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer
from torch import Tensor
from torch.nn import Parameter

_CHUNK_NUMEL = 16 << 20


@torch.no_grad()
def weights_unlike_masters(optimizer: MegatronOptimizer) -> list[Parameter]:
    """Weights whose part on this rank is not the rounding of the fp32 master that this rank keeps of it.

    Masters have no twins: each rank has those of its own part (ZeRO-1). A flip in the bits of a master that rounding
    keeps is found this way between two updates; one in the others, and in moments, is not. Weights in fp32 are their
    own masters.
    """
    pairs = list(_pairs(optimizer))
    if not pairs:
        return []
    differ = torch.stack([_differ(part, master) for _, part, master in pairs]).tolist()
    return [parameter for (parameter, _, _), found in zip(pairs, differ, strict=True) if found]


def _pairs(optimizer: MegatronOptimizer) -> Iterator[tuple[Parameter, Tensor, Tensor]]:
    parts = optimizer.chained_optimizers if isinstance(optimizer, ChainedOptimizer) else [optimizer]
    for part in parts:
        if getattr(part, "is_stub_optimizer", False):
            continue  # this rank holds none of its parameters
        groups = zip(part.model_float16_groups, part.shard_fp32_from_float16_groups, strict=True)
        for parameters, masters in groups:
            for parameter, master in zip(parameters, masters, strict=True):
                if master is None or not master.numel():
                    continue
                piece = part._get_model_param_range_map(parameter)["param"]
                yield parameter, parameter.detach().view(-1)[piece.start : piece.end], master.view(-1)


def _differ(part: Tensor, master: Tensor) -> Tensor:
    """Whether a bit differs, as a tensor that nothing waits for."""
    found = torch.zeros((), dtype=torch.bool, device=part.device)
    for start in range(0, part.numel(), _CHUNK_NUMEL):
        is_so = part[start : start + _CHUNK_NUMEL]
        should = master[start : start + _CHUNK_NUMEL].to(part.dtype)
        found |= (is_so.view(torch.int16) != should.view(torch.int16)).any()
    return found
