"""RMSNorm with the arithmetic of Hugging Face's LlamaRMSNorm.

    scale[t] = 1 / sqrt(mean_h(x[t, h]^2) + eps)            fp32
    out[t, h] = weight[h] * round(x[t, h] * scale[t])       round: to the input's dtype

Saved: the input (which the layer before keeps anyway) and one fp32 number per token.

Traffic in bf16 per element: 4 bytes forward, 6 bytes backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._rows import arithmetic_dtype, row_blocks


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        flat = x.reshape(-1, width)
        dtype = arithmetic_dtype(x.dtype)
        out = torch.empty_like(flat)
        scale = torch.empty(flat.shape[0], 1, dtype=dtype, device=x.device)
        for rows in row_blocks(flat.shape[0], width, x.device):
            wide = flat[rows].to(dtype)
            scale[rows] = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True).add_(eps))
            out[rows] = (wide * scale[rows]).to(x.dtype) * weight
        ctx.save_for_backward(x, weight, scale)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        width = x.shape[-1]
        flat, flat_grad = x.reshape(-1, width), grad.reshape(-1, width)
        dtype = arithmetic_dtype(x.dtype)
        wide_weight = weight.to(dtype)
        grad_x = torch.empty_like(flat)
        grad_weight = torch.zeros_like(wide_weight)
        for rows in row_blocks(flat.shape[0], width, x.device):
            normalised = flat[rows].to(dtype) * scale[rows]
            outer = flat_grad[rows].to(dtype)
            grad_weight += (outer * normalised).sum(0)
            outer = outer * wide_weight
            mean = (outer * normalised).mean(-1, keepdim=True)
            grad_x[rows] = (outer - normalised * mean).mul_(scale[rows])
        return grad_x.view(x.shape), grad_weight.to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divides each token's vector by its root mean square and multiplies by ``weight``.

    Args:
        x: [.., H], any floating dtype.
        weight: [H].
        eps: added to the mean square (1e-5 for Salamandra).
    Returns:
        [.., H], dtype of ``x``.
    Raises:
        ValueError: ``weight`` does not fit the last dimension of ``x``.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: weight {tuple(weight.shape)} does not fit input {tuple(x.shape)}")
    apply: Any = _RMSNorm.apply
    out: Tensor = apply(x, weight, eps)
    return out
