"""Who computes an operation: a Triton kernel or plain torch.

CUDA tensors take Triton when it is installed, everything else torch. The environment variable
``SALAMANDRA_KERNELS`` decides instead: ``reference`` (torch everywhere) or ``triton`` (refused when it cannot
run). With ``TRITON_INTERPRET=1`` set before the first import, ``triton`` also runs on CPU tensors, slowly,
in Triton's interpreter: that is how the kernels are tested without a GPU.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ceil_div",
    "interpreting",
    "jit",
    "launch_on",
    "next_power_of_two",
    "tl",
    "use_triton",
]

VARIABLE = "SALAMANDRA_KERNELS"
CHOICES = ("reference", "triton")

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None
    tl = None


def jit(function: Callable[..., None]) -> Any:
    """``triton.jit``, or the bare function where triton is not installed (it is then never called)."""
    return function if triton is None else triton.jit(function)


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def use_triton(tensor: Tensor) -> bool:
    """Whether the operation on ``tensor`` goes to its Triton kernel.

    Raises:
        ValueError: ``SALAMANDRA_KERNELS`` is neither empty nor one of ``CHOICES``.
        RuntimeError: it is ``triton``, and triton is missing or cannot run on this tensor.
    """
    choice = os.environ.get(VARIABLE, "")
    if choice and choice not in CHOICES:
        raise ValueError(f"{VARIABLE}={choice} is unknown; allowed: {', '.join(CHOICES)}, or unset")
    if choice == "reference":
        return False
    if choice == "triton":
        _require_triton(tensor)
        return True
    if tensor.device.type != "cuda" or tensor.dtype == torch.float64:
        return False
    if triton is None:
        _warn_once("triton is not installed: the slow torch reference computes RoPE, SwiGLU and the loss")
        return False
    return True


def _require_triton(tensor: Tensor) -> None:
    if triton is None:
        raise RuntimeError(f"{VARIABLE}=triton, but triton is not installed; pip install triton")
    if tensor.dtype == torch.float64:
        raise RuntimeError(f"{VARIABLE}=triton, but the kernels have no fp64; use {VARIABLE}=reference")
    if tensor.device.type != "cuda" and not interpreting():
        raise RuntimeError(
            f"{VARIABLE}=triton, but the tensor is on {tensor.device}; on the CPU the kernels run only in "
            "Triton's interpreter (TRITON_INTERPRET=1, for tests)"
        )


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def launch_on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's GPU the current one while a kernel is launched."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def ceil_div(amount: int, unit: int) -> int:
    """Number of units that cover the amount."""
    return -(-amount // unit)


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number``; Triton's tiles need one."""
    return 1 << (number - 1).bit_length()
