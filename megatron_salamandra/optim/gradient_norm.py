"""The global norm of the gradients as a number on the device, which nothing has to wait for."""

from __future__ import annotations

import torch
import torch.distributed as dist
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer, clip_grads
from megatron.core.utils import local_multi_tensor_l2_norm
from torch import Tensor


@torch.no_grad()
def squared_norm(optimizer: MegatronOptimizer) -> Tensor:
    """The squared global L2 norm of the gradients that the optimizer holds, before clipping; collective.

    The bits are those of Megatron-Core's ``get_grad_norm_fp32``, which fetches the number from the device.

    Returns:
        fp32 [1] on the device; infinite or NaN if a gradient is.
    """
    parts = optimizer.chained_optimizers if isinstance(optimizer, ChainedOptimizer) else [optimizer]
    gradients = [gradient for part in parts for gradient in part.get_main_grads_for_grad_norm()]
    squared = _norm(gradients) ** 2.0
    dist.all_reduce(squared, group=optimizer.get_grad_stats_parallel_group())
    return squared


def _norm(gradients: list[Tensor]) -> Tensor:
    if not gradients:
        return torch.zeros(1, dtype=torch.float32, device=torch.cuda.current_device())
    if (
        clip_grads.l2_norm_impl is not local_multi_tensor_l2_norm
    ):  # that of Transformer Engine or Apex: one kernel
        overflow = torch.zeros(1, dtype=torch.int, device=gradients[0].device)
        norm: Tensor
        norm, _ = clip_grads.multi_tensor_applier(clip_grads.l2_norm_impl, overflow, [gradients], False)
        return norm
    # Megatron-Core's own stand-in fetches the norm of every tensor.
    together: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return together.reshape(1)
