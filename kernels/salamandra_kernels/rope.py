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
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from ._backend import ceil_div, interpreting, jit, launch_on, next_power_of_two, tl, use_triton
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


class _Heads(NamedTuple):
    """Query [S, B, G, q, D], key and value [S, B, G, D]; views of one packed buffer, or three tensors."""

    query: Tensor
    key: Tensor
    value: Tensor

    @classmethod
    def of_packed(cls, mixed_qkv: Tensor, q_per_group: int, head_dim: int) -> _Heads:
        heads = mixed_qkv.view(*mixed_qkv.shape[:3], q_per_group + 2, head_dim)
        return cls(heads[:, :, :, :q_per_group], heads[:, :, :, -2], heads[:, :, :, -1])


def _rotate(
    source: _Heads, target: _Heads, table: Tensor, positions: Tensor | None, *, sign: int, copy_value: bool
) -> None:
    """Writes rotated Q and K (and V as it is, if asked) of ``source`` to ``target``, which may be the same."""
    if use_triton(source.query):
        _rotate_triton(source, target, table, positions, sign, copy_value)
        return
    _rotate_reference(source.query, target.query, table, positions, sign)
    _rotate_reference(source.key.unsqueeze(3), target.key.unsqueeze(3), table, positions, sign)
    if copy_value:
        target.value.copy_(source.value)


def _rotate_reference(
    source: Tensor, target: Tensor, table: Tensor, positions: Tensor | None, sign: int
) -> None:
    """``source`` and ``target`` are [S, B, G, heads, D]."""
    half = source.shape[-1] // 2
    dtype = arithmetic_dtype(source.dtype)
    for rows in row_blocks(source.shape[0], source[0].numel(), source.device):
        angles = table[rows].unsqueeze(1) if positions is None else table[positions[rows].long()]
        angles = angles.to(dtype)[:, :, None, None]
        cos, sin = angles[..., :half], angles[..., half:] * sign
        first, second = source[rows][..., :half].to(dtype), source[rows][..., half:].to(dtype)
        rotated_first = first * cos - second * sin
        rotated_second = second * cos + first * sin
        target[rows][..., :half] = rotated_first
        target[rows][..., half:] = rotated_second


@jit
def _rotate_rows(  # type: ignore[no-untyped-def]
    source,
    target,
    table,
    positions,
    block,
    rows,
    source_s,
    source_b,
    source_g,
    source_h,
    target_s,
    target_b,
    target_g,
    target_h,
    BATCH: tl.constexpr,
    GROUPS: tl.constexpr,
    HEADS_PER_GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    SIGN: tl.constexpr,
    HAS_POSITIONS: tl.constexpr,
):
    """Rotates BLOCK_ROWS rows, a row being one head of one token; SIGN 0 copies."""
    HALF: tl.constexpr = HEAD_DIM // 2
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_HALF)[None, :]
    mask = (row < rows)[:, None] & (column < HALF)
    token = row // (GROUPS * HEADS_PER_GROUP)
    head = row % (GROUPS * HEADS_PER_GROUP)
    s = (token // BATCH).to(tl.int64)
    b = (token % BATCH).to(tl.int64)
    g = head // HEADS_PER_GROUP
    h = head % HEADS_PER_GROUP
    source_at = source + (s * source_s + b * source_b + g * source_g + h * source_h)[:, None] + column
    target_at = target + (s * target_s + b * target_b + g * target_g + h * target_h)[:, None] + column
    first = tl.load(source_at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(source_at + HALF, mask=mask, other=0.0).to(tl.float32)
    if SIGN != 0:
        position = s
        if HAS_POSITIONS:
            position = tl.load(positions + token, mask=row < rows, other=0).to(tl.int64)
        angle_at = table + (position * HEAD_DIM)[:, None] + column
        cos = tl.load(angle_at, mask=mask, other=0.0)
        sin = tl.load(angle_at + HALF, mask=mask, other=0.0) * SIGN
        rotated = first * cos - second * sin
        second = second * cos + first * sin
        first = rotated
    tl.store(target_at, first.to(target.dtype.element_ty), mask=mask)
    tl.store(target_at + HALF, second.to(target.dtype.element_ty), mask=mask)


@jit
def _rope_kernel(  # type: ignore[no-untyped-def]
    q_source,
    k_source,
    v_source,
    q_target,
    k_target,
    v_target,
    table,
    positions,
    tokens,
    q_source_s,
    q_source_b,
    q_source_g,
    q_source_h,
    kv_source_s,
    kv_source_b,
    kv_source_g,
    q_target_s,
    q_target_b,
    q_target_g,
    q_target_h,
    kv_target_s,
    kv_target_b,
    kv_target_g,
    BATCH: tl.constexpr,
    GROUPS: tl.constexpr,
    Q_PER_GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    SIGN: tl.constexpr,
    HAS_POSITIONS: tl.constexpr,
):
    """The first programs take the query heads, the next the key heads, the last (if any) copy the value."""
    program = tl.program_id(0)
    q_rows = tokens * (GROUPS * Q_PER_GROUP)
    kv_rows = tokens * GROUPS
    q_blocks = tl.cdiv(q_rows, BLOCK_ROWS)
    kv_blocks = tl.cdiv(kv_rows, BLOCK_ROWS)
    if program < q_blocks:
        _rotate_rows(
            q_source, q_target, table, positions, program, q_rows,
            q_source_s, q_source_b, q_source_g, q_source_h, q_target_s, q_target_b, q_target_g, q_target_h,
            BATCH, GROUPS, Q_PER_GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_HALF, SIGN, HAS_POSITIONS,
        )  # fmt: skip
    elif program < q_blocks + kv_blocks:
        _rotate_rows(
            k_source, k_target, table, positions, program - q_blocks, kv_rows,
            kv_source_s, kv_source_b, kv_source_g, 0, kv_target_s, kv_target_b, kv_target_g, 0,
            BATCH, GROUPS, 1, HEAD_DIM, BLOCK_ROWS, BLOCK_HALF, SIGN, HAS_POSITIONS,
        )  # fmt: skip
    else:
        _rotate_rows(
            v_source, v_target, table, positions, program - q_blocks - kv_blocks, kv_rows,
            kv_source_s, kv_source_b, kv_source_g, 0, kv_target_s, kv_target_b, kv_target_g, 0,
            BATCH, GROUPS, 1, HEAD_DIM, BLOCK_ROWS, BLOCK_HALF, 0, HAS_POSITIONS,
        )  # fmt: skip


# Rows of one program: 16 rows of 64 pairs are two 16-byte loads for each of 128 threads, 32 registers each.
BLOCK_ROWS = 16
# The interpreter pays per program, so there one program takes many rows.
INTERPRETER_BLOCK_ROWS = 256


def _rotate_triton(
    source: _Heads, target: _Heads, table: Tensor, positions: Tensor | None, sign: int, copy_value: bool
) -> None:
    table = table.contiguous()
    positions = None if positions is None else positions.contiguous()
    query, key, value = (heads if heads.stride(-1) == 1 else heads.contiguous() for heads in source)
    if copy_value and key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    sequence, batch, groups, q_per_group, head_dim = query.shape
    block_rows = INTERPRETER_BLOCK_ROWS if interpreting() else BLOCK_ROWS
    kv_blocks = ceil_div(sequence * batch * groups, block_rows) * (2 if copy_value else 1)
    programs = ceil_div(sequence * batch * groups * q_per_group, block_rows) + kv_blocks
    with launch_on(query):
        _rope_kernel[(programs,)](
            query, key, value, *target, table, table if positions is None else positions, sequence * batch,
            *query.stride()[:4], *key.stride()[:3], *target.query.stride()[:4], *target.key.stride()[:3],
            BATCH=batch, GROUPS=groups, Q_PER_GROUP=q_per_group, HEAD_DIM=head_dim, BLOCK_ROWS=block_rows,
            BLOCK_HALF=next_power_of_two(head_dim // 2), SIGN=sign, HAS_POSITIONS=positions is not None,
            num_warps=4,
        )  # fmt: skip
    increment_version(target.query)
    increment_version(target.key)


class _RopeSplit(torch.autograd.Function):
    """Rotation and split in one; ``mark_dirty`` is left out on purpose.

    ``mixed_qkv`` is a view of a linear layer's output, and marking a view dirty makes autograd rebuild its
    base with extra copies. Nobody saves that output for backward (a linear layer saves its input), so the
    silent write is safe; the version counter still moves, so a wrong use is detected by autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, mixed_qkv: Tensor, table: Tensor, positions: Tensor | None, q_per_group: int, head_dim: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        source = _Heads.of_packed(mixed_qkv, q_per_group, head_dim)
        target = source
        if q_per_group > 1:
            # Heads of several groups have no common stride in the packed buffer: rotate into a new one.
            target = source._replace(query=mixed_qkv.new_empty(source.query.shape))
        _rotate(source, target, table, positions, sign=1, copy_value=False)
        ctx.save_for_backward(table, positions)
        ctx.q_per_group = q_per_group
        query = target.query.squeeze(3) if q_per_group == 1 else target.query.flatten(2, 3)
        return query, target.key, target.value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_query: Tensor, grad_key: Tensor, grad_value: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        table, positions = ctx.saved_tensors
        sequence, batch, groups, head_dim = grad_key.shape
        packed = grad_key.new_empty(sequence, batch, groups, (ctx.q_per_group + 2) * head_dim)
        grouped = grad_query.view(sequence, batch, groups, ctx.q_per_group, head_dim)
        source = _Heads(grouped, grad_key, grad_value)
        target = _Heads.of_packed(packed, ctx.q_per_group, head_dim)
        _rotate(source, target, table, positions, sign=-1, copy_value=True)
        return packed, None, None, None, None


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


def rope_split_qkv(
    mixed_qkv: Tensor, table: Tensor, *, q_per_group: int, head_dim: int, positions: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotates Q and K of the packed buffer and splits it; backward un-rotates and packs in one pass.

    ``mixed_qkv`` is overwritten and must not be used afterwards: it must be the fresh output of a layer that
    does not save its output (a linear layer). Recomputing activations is fine: the forward pass then runs on
    fresh tensors. Key and value are views of ``mixed_qkv``; the query is one too for multi-head attention,
    and a new contiguous tensor when groups hold several query heads (the rotation then does the copy that a
    reshape would otherwise do).

    Args:
        mixed_qkv: [S, B, G, (q_per_group + 2) * head_dim]; any floating dtype.
        table: from :func:`rope_table`, at least S rows, or enough for the largest of ``positions``.
        q_per_group: query heads per key-value head (1 for multi-head attention).
        head_dim: D.
        positions: optional integers [S, B], the row of the table for each token, for packed documents
            and sequence offsets; default: row s for token s.
    Returns:
        query [S, B, G * q_per_group, D], key [S, B, G, D], value [S, B, G, D].
    Raises:
        ValueError: shapes disagree.
    """
    _check(mixed_qkv, table, positions, q_per_group, head_dim)
    apply: Any = _RopeSplit.apply
    query, key, value = apply(mixed_qkv, table, positions, q_per_group, head_dim)
    return query, key, value
