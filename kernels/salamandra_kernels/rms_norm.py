"""RMSNorm with the arithmetic of Hugging Face's LlamaRMSNorm.

    scale[t] = 1 / sqrt(mean_h(x[t, h]^2) + eps)            fp32
    out[t, h] = weight[h] * round(x[t, h] * scale[t])       round: to the input's dtype

    with n = x * scale and g = grad * weight:
    grad_x[t, h]   = scale[t] * (g[t, h] - n[t, h] * mean_h(g[t, h] * n[t, h]))
    grad_weight[h] = sum_t grad[t, h] * n[t, h]

Saved: the input (which the layer before keeps anyway) and one fp32 number per token. The weight's gradient is
summed in registers by a few programs that each walk many rows, then over those programs, so it does not
depend on timing.

Traffic in bf16 per element: 4 bytes forward, 6 bytes backward.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._backend import jit, launch_on, next_power_of_two, tl, use_triton
from ._rows import arithmetic_dtype, row_blocks


def _forward_reference(x: Tensor, weight: Tensor, eps: float, out: Tensor, scale: Tensor) -> None:
    dtype = scale.dtype
    for rows in row_blocks(x.shape[0], x.shape[1], x.device):
        wide = x[rows].to(dtype)
        scale[rows] = torch.rsqrt(wide.square().mean(-1).add_(eps))
        out[rows] = (wide * scale[rows, None]).to(x.dtype) * weight


def _backward_reference(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, grad_x: Tensor) -> Tensor:
    dtype = scale.dtype
    wide_weight = weight.to(dtype)
    grad_weight = torch.zeros_like(wide_weight)
    for rows in row_blocks(x.shape[0], x.shape[1], x.device):
        normalised = x[rows].to(dtype) * scale[rows, None]
        outer = grad[rows].to(dtype)
        grad_weight += (outer * normalised).sum(0)
        outer = outer * wide_weight
        mean = (outer * normalised).mean(-1, keepdim=True)
        grad_x[rows] = (outer - normalised * mean).mul_(scale[rows, None])
    return grad_weight


@jit
def _rms_norm_forward_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    out,
    scale,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    offset = row.to(tl.int64) * WIDTH + column
    values = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    row_scale = tl.rsqrt(tl.sum(values * values, axis=0) / WIDTH + eps)
    rounded = (values * row_scale).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + offset, (rounded * gain).to(out.dtype.element_ty), mask=mask)
    tl.store(scale + row, row_scale)


@jit
def _rms_norm_backward_kernel(  # type: ignore[no-untyped-def]
    grad,
    x,
    weight,
    scale,
    grad_x,
    partial_grad_weight,
    rows,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: every n-th row, n the number of programs, and one partial gradient of the weight."""
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    grad_gain = tl.zeros([BLOCK], tl.float32)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    for step in range(tl.cdiv(rows - program, programs)):
        row = (program + step * programs).to(tl.int64)
        offset = row * WIDTH + column
        row_scale = tl.load(scale + row)
        normalised = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32) * row_scale
        outer = tl.load(grad + offset, mask=mask, other=0.0).to(tl.float32)
        grad_gain += outer * normalised
        outer = outer * gain
        mean = tl.sum(outer * normalised, axis=0) / WIDTH
        slope = (outer - normalised * mean) * row_scale
        tl.store(grad_x + offset, slope.to(grad_x.dtype.element_ty), mask=mask)
    tl.store(partial_grad_weight + program * WIDTH + column, grad_gain, mask=mask)


# Elements of a row per thread; more would spill in backward, which keeps four such vectors.
ELEMENTS_PER_THREAD = 8
# Backward needs up to 64 registers per thread: so many warps fit into one multiprocessor.
RESIDENT_WARPS = 32
INTERPRETER_PROGRAMS = 3


def warps_for(width: int) -> int:
    """Warps of one program, between 4 and 32."""
    return min(32, max(4, next_power_of_two(width) // (32 * ELEMENTS_PER_THREAD)))


@functools.cache
def _resident_programs(device: torch.device, warps: int) -> int:
    if device.type != "cuda":
        return INTERPRETER_PROGRAMS
    multiprocessors: int = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, RESIDENT_WARPS // warps) * multiprocessors


def _forward(x: Tensor, weight: Tensor, eps: float, out: Tensor, scale: Tensor) -> None:
    """``x`` [rows, H] -> ``out`` [rows, H] and ``scale`` [rows]."""
    if not use_triton(x):
        _forward_reference(x, weight, eps, out, scale)
        return
    rows, width = x.shape
    block = next_power_of_two(width)
    with launch_on(x):
        _rms_norm_forward_kernel[(rows,)](
            x, weight, out, scale, eps, WIDTH=width, BLOCK=block, num_warps=warps_for(width)
        )


def _backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, grad_x: Tensor) -> Tensor:
    """Fills ``grad_x`` [rows, H] and returns the weight's gradient [H] in fp32."""
    if not use_triton(x):
        return _backward_reference(grad, x, weight, scale, grad_x)
    rows, width = x.shape
    programs = min(rows, _resident_programs(x.device, warps_for(width)))
    partial = torch.empty(programs, width, dtype=scale.dtype, device=x.device)
    with launch_on(x):
        _rms_norm_backward_kernel[(programs,)](
            grad, x, weight, scale, grad_x, partial, rows,
            WIDTH=width, BLOCK=next_power_of_two(width), num_warps=warps_for(width),
        )  # fmt: skip
    return partial.sum(0)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        flat = x.contiguous().view(-1, x.shape[-1])
        out = torch.empty_like(flat)
        scale = torch.empty(flat.shape[0], dtype=arithmetic_dtype(x.dtype), device=x.device)
        _forward(flat, weight.contiguous(), eps, out, scale)
        ctx.save_for_backward(x, weight, scale)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        flat = x.detach().contiguous().view(-1, x.shape[-1])
        grad_x = torch.empty_like(flat)
        grad_weight = _backward(
            grad.contiguous().view(flat.shape), flat, weight.detach().contiguous(), scale, grad_x
        )
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
