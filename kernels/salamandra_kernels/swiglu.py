"""SwiGLU on the packed output of the first MLP layer.

Layout of ``gate_up`` for one token, f = ffn_hidden_size / tensor parallel size::

    | gate 0 .. f-1 | up 0 .. f-1 |   ->   | silu(gate) * up, 0 .. f-1 |

Only ``gate_up`` is saved; backward computes the sigmoid again. Arithmetic is fp32.

Traffic in bf16 per element of the output: 6 bytes forward (read gate and up, write one), 10 bytes backward
(read the gradient, gate and up, write two).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from ._backend import ceil_div, interpreting, jit, launch_on, next_power_of_two, tl, use_triton
from ._rows import arithmetic_dtype, row_blocks


def _forward_reference(gate_up: Tensor, out: Tensor) -> None:
    width = out.shape[-1]
    dtype = arithmetic_dtype(out.dtype)
    for rows in row_blocks(out.shape[0], 2 * width, out.device):
        gate, up = gate_up[rows, :width].to(dtype), gate_up[rows, width:].to(dtype)
        out[rows] = torch.nn.functional.silu(gate).mul_(up)


def _backward_reference(grad: Tensor, gate_up: Tensor, grad_gate_up: Tensor) -> None:
    width = grad.shape[-1]
    dtype = arithmetic_dtype(grad.dtype)
    for rows in row_blocks(grad.shape[0], 2 * width, grad.device):
        gate, up = gate_up[rows, :width].to(dtype), gate_up[rows, width:].to(dtype)
        outer = grad[rows].to(dtype)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        # d silu / d gate = sigmoid + silu * (1 - sigmoid)
        slope = (1 - sigmoid).mul_(silu).add_(sigmoid)
        grad_gate = slope.mul_(up).mul_(outer)
        grad_up = silu.mul_(outer)
        grad_gate_up[rows, :width] = grad_gate
        grad_gate_up[rows, width:] = grad_up


@jit
def _swiglu_forward_kernel(  # type: ignore[no-untyped-def]
    gate_up,
    out,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK columns of one row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < WIDTH
    at = gate_up + row * (2 * WIDTH) + column
    gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(at + WIDTH, mask=mask, other=0.0).to(tl.float32)
    product = gate * tl.sigmoid(gate) * up
    tl.store(out + row * WIDTH + column, product.to(out.dtype.element_ty), mask=mask)


@jit
def _swiglu_backward_kernel(  # type: ignore[no-untyped-def]
    grad,
    gate_up,
    grad_gate_up,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK columns of one row; ``grad_gate_up`` may be ``gate_up``."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < WIDTH
    at = row * (2 * WIDTH) + column
    gate = tl.load(gate_up + at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + at + WIDTH, mask=mask, other=0.0).to(tl.float32)
    outer = tl.load(grad + row * WIDTH + column, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    grad_gate = (sigmoid + silu * (1 - sigmoid)) * up * outer
    grad_up = silu * outer
    tl.store(grad_gate_up + at, grad_gate.to(grad_gate_up.dtype.element_ty), mask=mask)
    tl.store(grad_gate_up + at + WIDTH, grad_up.to(grad_gate_up.dtype.element_ty), mask=mask)


# 128 threads with one 16-byte access to each operand. Whole rows (f rounded up to a power of two) would
# leave a third of the lanes idle at f = 5440 and spill registers at f = 24576.
BLOCK = 1024


def _grid(rows: int, width: int) -> tuple[tuple[int, int], int]:
    """Programs, and the columns of each."""
    block = next_power_of_two(width) if interpreting() else BLOCK
    return (rows, ceil_div(width, block)), block


def _forward(gate_up: Tensor, out: Tensor) -> None:
    """``gate_up`` [rows, 2f] -> ``out`` [rows, f]."""
    if not use_triton(out):
        _forward_reference(gate_up, out)
        return
    programs, block = _grid(*out.shape)
    with launch_on(out):
        _swiglu_forward_kernel[programs](gate_up, out, WIDTH=out.shape[1], BLOCK=block, num_warps=4)


def _backward(grad: Tensor, gate_up: Tensor, grad_gate_up: Tensor) -> None:
    """``grad`` [rows, f] -> ``grad_gate_up`` [rows, 2f], which may be ``gate_up`` itself."""
    if not use_triton(grad):
        _backward_reference(grad, gate_up, grad_gate_up)
        return
    programs, block = _grid(*grad.shape)
    with launch_on(grad):
        _swiglu_backward_kernel[programs](
            grad, gate_up, grad_gate_up, WIDTH=grad.shape[1], BLOCK=block, num_warps=4
        )
    increment_version(grad_gate_up)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, overwrite_input: bool) -> Tensor:
        width = gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], width)
        _forward(gate_up.view(-1, 2 * width), out.view(-1, width))
        ctx.save_for_backward(gate_up)
        ctx.overwrite_input, ctx.consumed = overwrite_input, False
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.consumed:
            raise RuntimeError(
                "swiglu: a second backward pass, but the first one wrote the gradient over the saved input; "
                "call swiglu with overwrite_input=False where the graph is used twice"
            )
        (gate_up,) = ctx.saved_tensors
        ctx.consumed = ctx.overwrite_input
        grad_gate_up = gate_up.detach() if ctx.overwrite_input else torch.empty_like(gate_up)
        width = grad.shape[-1]
        _backward(
            grad.contiguous().view(-1, width),
            gate_up.detach().view(-1, 2 * width),
            grad_gate_up.view(-1, 2 * width),
        )
        return grad_gate_up, None


def swiglu(gate_up: Tensor, *, overwrite_input: bool = False) -> Tensor:
    """``silu(gate) * up`` for the two halves of the last dimension, gate first.

    Args:
        gate_up: [.., 2f], contiguous, any floating dtype.
        overwrite_input: backward writes its result over ``gate_up`` and saves one buffer of that size.
            Allowed only when nothing else reads ``gate_up`` (the output of a linear layer is not read
            by that layer's backward). Backward then runs once.
    Returns:
        [.., f], dtype of the input.
    Raises:
        ValueError: the last dimension is odd, or the input is not contiguous.
        RuntimeError: in backward, when it runs a second time over an overwritten input.
    """
    if gate_up.shape[-1] % 2:
        raise ValueError(f"swiglu: the last dimension of {tuple(gate_up.shape)} must hold two equal halves")
    if not gate_up.is_contiguous():
        raise ValueError(
            f"swiglu: input {tuple(gate_up.shape)} with strides {gate_up.stride()} is not contiguous"
        )
    apply: Any = _SwiGLU.apply
    out: Tensor = apply(gate_up, overwrite_input)
    return out
