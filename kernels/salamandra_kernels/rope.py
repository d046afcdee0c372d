"""Rotary position embedding on Megatron's packed QKV.

Layout of ``mixed_qkv`` [S, B, G, (q + 2) * D] for one token, q query heads per group::

    group 0                          group 1
    | q0 | q1 | .. | q(q-1) | k | v | q0 | q1 | .. | k | v | ...
      D    D          D       D   D

Query and key heads are neighbours, so one pass over the first q + 1 heads of every group rotates both.
Within a head the first half pairs with the second half (``rotate_half``, not interleaved)::

    out[i]         = x[i] * cos[i] - x[i + D/2] * sin[i]
    out[i + D/2]   = x[i + D/2] * cos[i] + x[i] * sin[i]

The table holds cos and sin in fp32 and the arithmetic is fp32: for bf16 tensors the only error left is the
rounding of the result. The rotation is orthogonal, so backward rotates by the opposite angle and nothing of
the activation's size is saved.

Traffic in bf16: 4 bytes per element of Q and K forward (V is not touched); backward 4 bytes per element of
Q, K and V, because it packs the three gradients on the way.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._rows import arithmetic_dtype, row_blocks


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama-3's change of the frequencies for sequences longer than those of pre-training.

    Wavelengths above ``original_sequence_length / low_frequency_factor`` are stretched by ``factor``, those
    below ``original_sequence_length / high_frequency_factor`` are kept, and between them the change is linear
    in frequency.
    """

    factor: float
    original_sequence_length: int
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0

    def __post_init__(self) -> None:
        if self.factor < 1 or self.original_sequence_length < 1:
            raise ValueError(
                f"RopeScaling: factor = {self.factor} and original_sequence_length = "
                f"{self.original_sequence_length} must both be at least 1"
            )
        if not 0 < self.low_frequency_factor < self.high_frequency_factor:
            raise ValueError(
                f"RopeScaling: needs 0 < low_frequency_factor < high_frequency_factor, got "
                f"{self.low_frequency_factor} and {self.high_frequency_factor}"
            )

    def apply(self, frequencies: Tensor) -> Tensor:
        """Returns the changed inverse frequencies, same shape."""
        turns = self.original_sequence_length * frequencies / (2 * math.pi)
        span = self.high_frequency_factor - self.low_frequency_factor
        kept = ((turns - self.low_frequency_factor) / span).clamp(0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


def rope_table(
    positions: int | Tensor,
    head_dim: int,
    base: float,
    *,
    scaling: RopeScaling | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Cosines and sines of every rotation angle.

    Angles are computed in fp32, as Hugging Face and megatron-core do, so that checkpoints agree with both.

    Args:
        positions: number of positions S (0 .. S-1), or a tensor [S] with the positions themselves.
        head_dim: D, even.
        base: base of the geometric series of wavelengths (10000 for Salamandra).
        scaling: optional change of the frequencies for long sequences.
        device: where the table is made; default: the device of ``positions``, else the CPU.
    Returns:
        [S, D] fp32: D/2 cosines, then D/2 sines.
    Raises:
        ValueError: ``head_dim`` is odd, or ``positions`` is not one-dimensional.
    """
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"rope_table: head_dim = {head_dim} must be even and positive")
    if isinstance(positions, Tensor):
        if positions.dim() != 1:
            raise ValueError(f"rope_table: positions must be [S], got {tuple(positions.shape)}")
        at = positions.to(device=device or positions.device, dtype=torch.float32)
    else:
        at = torch.arange(positions, device=device or "cpu", dtype=torch.float32)
    exponents = torch.arange(0, head_dim, 2, device=at.device, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (base**exponents)
    if scaling is not None:
        frequencies = scaling.apply(frequencies)
    angles = torch.outer(at, frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _rotate(source: Tensor, target: Tensor, table: Tensor, positions: Tensor | None, sign: float) -> None:
    """Writes the rotated ``source`` [S, B, heads.., D] to ``target`` of the same shape (may be the same)."""
    half = source.shape[-1] // 2
    dtype = arithmetic_dtype(source.dtype)
    head_axes = (1,) * (source.dim() - 3)
    for rows in row_blocks(source.shape[0], source[0].numel(), source.device):
        angles = table[rows].unsqueeze(1) if positions is None else table[positions[rows].long()]
        angles = angles.to(dtype).view(*angles.shape[:2], *head_axes, -1)
        cos, sin = angles[..., :half], angles[..., half:] * sign
        first, second = source[rows][..., :half].to(dtype), source[rows][..., half:].to(dtype)
        rotated_first = first * cos - second * sin
        rotated_second = second * cos + first * sin
        target[rows][..., :half] = rotated_first
        target[rows][..., half:] = rotated_second


def _by_head(mixed_qkv: Tensor, q_per_group: int, head_dim: int) -> Tensor:
    """View [S, B, G, q + 2, D]."""
    return mixed_qkv.view(*mixed_qkv.shape[:3], q_per_group + 2, head_dim)


def _query_and_key(mixed_qkv: Tensor, q_per_group: int, head_dim: int) -> Tensor:
    """View [S, B, G, q + 1, D] of the query heads and the key head of each group."""
    return _by_head(mixed_qkv, q_per_group, head_dim)[:, :, :, : q_per_group + 1]


class _RopePacked(torch.autograd.Function):
    """Rotation in place; ``mark_dirty`` is left out on purpose.

    ``mixed_qkv`` is a view of a linear layer's output, and marking a view dirty makes autograd rebuild its
    base with extra copies. Nobody saves that output for backward (a linear layer saves its input), so the
    silent write is safe; the version counter still moves, so a wrong use is detected by autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, mixed_qkv: Tensor, table: Tensor, positions: Tensor | None, q_per_group: int, head_dim: int
    ) -> Tensor:
        heads = _query_and_key(mixed_qkv, q_per_group, head_dim)
        _rotate(heads, heads, table, positions, 1.0)
        ctx.save_for_backward(table, positions)
        ctx.q_per_group, ctx.head_dim = q_per_group, head_dim
        return mixed_qkv

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        table, positions = ctx.saved_tensors
        packed = torch.empty_like(grad, memory_format=torch.contiguous_format)
        source = _query_and_key(grad, ctx.q_per_group, ctx.head_dim)
        _rotate(source, _query_and_key(packed, ctx.q_per_group, ctx.head_dim), table, positions, -1.0)
        packed[..., -ctx.head_dim :] = grad[..., -ctx.head_dim :]
        return packed, None, None, None, None


class _RopeSplit(torch.autograd.Function):
    """Rotation and split in one; see ``_RopePacked`` for the missing ``mark_dirty``."""

    @staticmethod
    def forward(
        ctx: Any, mixed_qkv: Tensor, table: Tensor, positions: Tensor | None, q_per_group: int, head_dim: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        sequence, batch, groups, _ = mixed_qkv.shape
        heads = _by_head(mixed_qkv, q_per_group, head_dim)
        if q_per_group == 1:
            _rotate(heads[:, :, :, :2], heads[:, :, :, :2], table, positions, 1.0)
            query = heads[:, :, :, 0]
        else:
            # Heads of several groups have no common stride in the packed buffer: rotate into a new one.
            query = mixed_qkv.new_empty(sequence, batch, groups * q_per_group, head_dim)
            grouped = query.view(sequence, batch, groups, q_per_group, head_dim)
            _rotate(heads[:, :, :, :q_per_group], grouped, table, positions, 1.0)
            _rotate(heads[:, :, :, q_per_group], heads[:, :, :, q_per_group], table, positions, 1.0)
        ctx.save_for_backward(table, positions)
        ctx.q_per_group = q_per_group
        return query, heads[:, :, :, -2], heads[:, :, :, -1]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_query: Tensor, grad_key: Tensor, grad_value: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        table, positions = ctx.saved_tensors
        sequence, batch, groups, head_dim = grad_key.shape
        packed = grad_key.new_empty(sequence, batch, groups, ctx.q_per_group + 2, head_dim)
        grouped = grad_query.view(sequence, batch, groups, ctx.q_per_group, head_dim)
        _rotate(grouped, packed[:, :, :, : ctx.q_per_group], table, positions, -1.0)
        _rotate(grad_key, packed[:, :, :, -2], table, positions, -1.0)
        packed[:, :, :, -1] = grad_value
        return packed.flatten(-2), None, None, None, None


def _check(
    mixed_qkv: Tensor, table: Tensor, positions: Tensor | None, q_per_group: int, head_dim: int
) -> None:
    if mixed_qkv.dim() != 4 or mixed_qkv.shape[-1] != (q_per_group + 2) * head_dim:
        raise ValueError(
            f"rope: mixed_qkv is {tuple(mixed_qkv.shape)}, expected [S, B, G, {(q_per_group + 2) * head_dim}] "
            f"for q_per_group = {q_per_group} and head_dim = {head_dim}"
        )
    if table.dim() != 2 or table.shape[1] != head_dim:
        raise ValueError(f"rope: table is {tuple(table.shape)}, expected [positions, {head_dim}]")
    if positions is None:
        if table.shape[0] < mixed_qkv.shape[0]:
            raise ValueError(
                f"rope: the table ends at position {table.shape[0]}, the sequence at {mixed_qkv.shape[0]}"
            )
    elif positions.shape != mixed_qkv.shape[:2]:
        raise ValueError(
            f"rope: positions is {tuple(positions.shape)}, expected [S, B] = {tuple(mixed_qkv.shape[:2])}"
        )


def rope_packed_qkv(
    mixed_qkv: Tensor, table: Tensor, *, q_per_group: int, head_dim: int, positions: Tensor | None = None
) -> Tensor:
    """Rotates Q and K inside the packed buffer and returns the same buffer.

    ``mixed_qkv`` is overwritten, so it must be the fresh output of a layer that does not save its output
    (a linear layer). Recomputing activations is fine: the forward pass then runs on fresh tensors.

    Args:
        mixed_qkv: [S, B, G, (q_per_group + 2) * head_dim]; any floating dtype.
        table: from :func:`rope_table`, at least S rows, or enough for the largest of ``positions``.
        q_per_group: query heads per key-value head (1 for multi-head attention).
        head_dim: D.
        positions: optional integers [S, B], the row of the table for each token, for packed documents
            and sequence offsets; default: row s for token s.
    Returns:
        The storage of ``mixed_qkv``, same shape, V untouched.
    Raises:
        ValueError: shapes disagree.
    """
    _check(mixed_qkv, table, positions, q_per_group, head_dim)
    apply: Any = _RopePacked.apply
    out: Tensor = apply(mixed_qkv, table, positions, q_per_group, head_dim)
    return out


def rope_split_qkv(
    mixed_qkv: Tensor, table: Tensor, *, q_per_group: int, head_dim: int, positions: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotates Q and K and splits the packed buffer, so that backward packs and un-rotates in one pass.

    Key and value are views of ``mixed_qkv``; the query is one too for multi-head attention, and a new
    contiguous tensor when groups hold several query heads (the rotation then does the copy that
    a reshape would otherwise do). ``mixed_qkv`` is overwritten, as in :func:`rope_packed_qkv`, and
    must not be used afterwards. Arguments and errors are those of :func:`rope_packed_qkv`.

    Returns:
        query [S, B, G * q_per_group, D], key [S, B, G, D], value [S, B, G, D].
    """
    _check(mixed_qkv, table, positions, q_per_group, head_dim)
    apply: Any = _RopeSplit.apply
    query, key, value = apply(mixed_qkv, table, positions, q_per_group, head_dim)
    return query, key, value
