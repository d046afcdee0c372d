"""RoPE, SwiGLU and RMSNorm: every implementation, ours and others', behind one signature.

An entry takes the operation's input and returns its differentiable output. Packages that are missing leave
their entries out; ``missing`` says which. Some entries write over their input or over the upstream gradient;
whoever measures them restores both before each run (see measurement.py), so nobody gains or loses by that.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from salamandra_kernels import rms_norm, rope_split_qkv, rope_table, swiglu

Implementation = Callable[..., Any]
EPS = 1e-5
missing: dict[str, str] = {}


def optional_module(peer: str, name: str) -> Any:
    """The module, or None and a reason in ``missing``."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a peer that breaks at import must not end the benchmark
        missing[peer] = f"{type(error).__name__}: {error}"[:300]
        return None


def compiled(function: Implementation) -> Implementation:
    """torch.compile for one static shape."""
    return torch.compile(function, dynamic=False)


def rope_entries(
    groups: int, q_per_group: int, head_dim: int, sequence: int, device: torch.device
) -> dict[str, Implementation]:
    """``mixed_qkv [S, 1, G, (q + 2) D] -> query [S, 1, G q, D], key and value [S, 1, G, D]``."""
    table = rope_table(sequence, head_dim, 10_000.0, device=device)
    cos, sin = (part.repeat(1, 2)[:, None, None] for part in table.chunk(2, -1))

    def split(mixed: Tensor) -> tuple[Tensor, ...]:
        query, key, value = mixed.split([q_per_group * head_dim, head_dim, head_dim], -1)
        return query.reshape(*mixed.shape[:2], groups * q_per_group, head_dim), key, value

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)

    def eager(mixed: Tensor) -> tuple[Tensor, ...]:
        query, key, value = split(mixed)
        return rotated(query), rotated(key), value

    entries: dict[str, Implementation] = {
        "ours": lambda mixed: rope_split_qkv(mixed, table, q_per_group=q_per_group, head_dim=head_dim),
        "eager": eager,
        "compile": compiled(eager),
    }
    angles = torch.atan2(table[:, head_dim // 2 :], table[:, : head_dim // 2]).repeat(1, 2)[:, None, None]
    if core := optional_module("megatron-core", "megatron.core.models.common.embeddings.rope_utils"):

        def with_core(mixed: Tensor) -> tuple[Tensor, ...]:
            query, key, value = split(mixed)
            return *(core._apply_rotary_pos_emb_bshd(x, angles) for x in (query, key)), value

        entries["megatron-core"] = with_core
    if liger := optional_module("liger-kernel", "liger_kernel.ops.rope"):
        cos_1SD, sin_1SD = cos[:, 0, 0][None], sin[:, 0, 0][None]

        def with_liger(mixed: Tensor) -> tuple[Tensor, ...]:
            query, key, value = split(mixed)
            query, key = (x.permute(1, 2, 0, 3) for x in (query, key))
            query, key = liger.LigerRopeFunction.apply(query, key, cos_1SD, sin_1SD)
            return *(x.permute(2, 0, 1, 3) for x in (query, key)), value

        entries["liger-kernel"] = with_liger
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch.attention.rope"):

        def with_engine(mixed: Tensor) -> tuple[Tensor, ...]:
            query, key, value = split(mixed)
            return *(engine.apply_rotary_pos_emb(x, angles, fused=True) for x in (query, key)), value

        entries["transformer-engine"] = with_engine
    return entries


def swiglu_entries() -> dict[str, Implementation]:
    """``gate_up [rows, 2f] -> [rows, f]``; "overwriting" entries put the gradient in the place of the input."""

    def eager(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate) * up

    entries: dict[str, Implementation] = {
        "ours": swiglu,
        "ours-overwriting": lambda gate_up: swiglu(gate_up, overwrite_input=True),
        "eager": eager,
        "compile": compiled(eager),
    }
    if core := optional_module("megatron-core", "megatron.core.fusions.fused_bias_swiglu"):
        entries["megatron-core"] = lambda gate_up: core.bias_swiglu_impl(gate_up, None)
    if liger := optional_module("liger-kernel", "liger_kernel.ops.swiglu"):
        if hasattr(liger, "LigerFusedGateUpSiLUMulFunction"):
            packed = liger.LigerFusedGateUpSiLUMulFunction
            entries["liger-kernel"] = lambda gate_up: packed.apply(gate_up, False)
            entries["liger-kernel-overwriting"] = lambda gate_up: packed.apply(gate_up, True)
        else:  # older versions take two tensors, so both halves are copied first
            entries["liger-kernel"] = lambda gate_up: liger.LigerSiLUMulFunction.apply(*gate_up.chunk(2, -1))
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch.ops"):
        activation = functools.cache(engine.SwiGLU)
        entries["transformer-engine"] = lambda gate_up: activation()(gate_up)
    return entries


def norm_entries(weight: torch.nn.Parameter) -> dict[str, Implementation]:
    """``x [rows, H] -> [rows, H]``; ``weight`` [H] gets a gradient as well."""

    def eager(x: Tensor) -> Tensor:
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype)

    entries: dict[str, Implementation] = {
        "ours": lambda x: rms_norm(x, weight, EPS),
        "eager": eager,
        "compile": compiled(eager),
        "torch": lambda x: F.rms_norm(x, x.shape[-1:], weight, EPS),
    }
    if liger := optional_module("liger-kernel", "liger_kernel.ops.rms_norm"):
        # As it comes: the gradient is written over the upstream gradient.
        entries["liger-kernel"] = lambda x: liger.LigerRMSNormFunction.apply(x, weight, EPS)
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch"):

        @functools.cache
        def norm() -> Any:
            module = engine.RMSNorm(weight.shape[0], eps=EPS, dtype=weight.dtype, device=weight.device)
            module.weight = weight
            return module

        entries["transformer-engine"] = lambda x: norm()(x)
    return entries
