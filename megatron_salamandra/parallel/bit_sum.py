"""A sum over the raw bits of a tensor: cheap enough to compare all weights of a run every few steps."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES = 64 << 20
_WORD_BYTES = 8
_FACTOR = 0x1E3779B97F4A7C15
"""Odd, so that multiplying by it loses no bit."""


@torch.no_grad()
def bit_sum(tensor: Tensor) -> Tensor:
    """Sum of the tensor's bits as 64-bit words, modulo 2**64; a single flipped bit always changes it.

    The words of a chunk are added, and the sums of chunks are combined by their order. Two flips in one chunk cancel if
    they hit the same bit of two words in opposite directions. Integer addition has no rounding, so that the sum does
    not depend on the device or the order of its work.

    Args:
        tensor: of any dtype, contiguous; it is read once and not copied, unless it begins between two words.
    Returns:
        int64, without dimensions, on the tensor's device; nothing waits for it.
    """
    data = tensor.detach().reshape(-1).view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        whole = len(chunk) // _WORD_BYTES * _WORD_BYTES
        words = chunk[:whole]
        if words.storage_offset() % _WORD_BYTES:
            words = words.clone()
        total = total * _FACTOR + words.view(torch.int64).sum() + chunk[whole:].sum(dtype=torch.int64)
    return total


def bit_sums(tensors: list[Tensor], device: torch.device) -> Tensor:
    """The sums of several tensors: [tensors] int64; see :func:`bit_sum`."""
    if not tensors:
        return torch.zeros(0, dtype=torch.int64, device=device)
    return torch.stack([bit_sum(tensor) for tensor in tensors])
