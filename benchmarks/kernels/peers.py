"""Every implementation of each operation, ours and others', behind one signature.

An entry takes the operation's inputs and returns its differentiable output. Packages that are missing leave
their entries out; ``missing`` says which.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from salamandra_kernels import rms_norm, rope_split_qkv, rope_table, swiglu, vocab_parallel_cross_entropy

Implementation = Callable[..., Any]
missing: dict[str, str] = {}


def optional_module(peer: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a peer that breaks at import must not end the benchmark
        missing[peer] = f"{type(error).__name__}: {error}"
        return None


def _compiled(function: Implementation) -> Implementation:
    return torch.compile(function, dynamic=False)


def rope(groups: int, q_per_group: int, head_dim: int, sequence: int, device: torch.device) -> dict[str, Any]:
    """``mixed_qkv [S, 1, G, (q + 2) D] -> (query, key, value)``."""
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
        "compile": _compiled(eager),
    }
    angles = torch.atan2(table[:, head_dim // 2 :], table[:, : head_dim // 2]).repeat(1, 2)[:, None, None]
    if core := optional_module("megatron-core", "megatron.core.models.common.embeddings.rope_utils"):

        def megatron(mixed: Tensor) -> tuple[Tensor, ...]:
            query, key, value = split(mixed)
            return *(core._apply_rotary_pos_emb_bshd(x, angles) for x in (query, key)), value

        entries["megatron-core"] = megatron
    if liger := optional_module("liger-kernel", "liger_kernel.ops.rope"):
        cos_1SD, sin_1SD = cos[:, 0, 0][None], sin[:, 0, 0][None]

        def with_liger(mixed: Tensor) -> tuple[Tensor, ...]:
            query, key, value = split(mixed)
            query, key = (x.permute(1, 2, 0, 3) for x in (query, key))
            return *liger.LigerRopeFunction.apply(query, key, cos_1SD, sin_1SD), value

        entries["liger-kernel"] = with_liger
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch.attention.rope"):

        def with_engine(mixed: Tensor) -> tuple[Tensor, ...]:
            query, key, value = split(mixed)
            return *(engine.apply_rotary_pos_emb(x, angles, fused=True) for x in (query, key)), value

        entries["transformer-engine"] = with_engine
    return entries


def swiglu_entries() -> dict[str, Implementation]:
    """``gate_up [rows, 2f] -> [rows, f]``."""

    def eager(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate) * up

    entries: dict[str, Implementation] = {
        "ours": swiglu,
        "ours-overwriting": lambda gate_up: swiglu(gate_up, overwrite_input=True),
        "eager": eager,
        "compile": _compiled(eager),
    }
    if core := optional_module("megatron-core", "megatron.core.fusions.fused_bias_swiglu"):
        entries["megatron-core"] = lambda gate_up: core.bias_swiglu_impl(gate_up, None)
    if liger := optional_module("liger-kernel", "liger_kernel.ops.swiglu"):
        entries["liger-kernel"] = lambda gate_up: liger.LigerSiLUMulFunction.apply(*gate_up.chunk(2, -1))
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch.ops"):
        entries["transformer-engine"] = engine.SwiGLU()
    return entries


def loss_entries() -> dict[str, Implementation]:
    """``(logits [S, 1, V], labels [S, 1]) -> loss [S, 1]`` on one rank."""

    def eager(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")

    entries: dict[str, Implementation] = {
        "ours": vocab_parallel_cross_entropy,
        "eager": eager,
        "compile": _compiled(eager),
    }
    if core := optional_module("megatron-core", "megatron.core.tensor_parallel.cross_entropy"):
        entries["megatron-core"] = core.vocab_parallel_cross_entropy
    if fused := optional_module("megatron-core", "megatron.core.fusions.fused_cross_entropy"):
        state = importlib.import_module("megatron.core.parallel_state")
        entries["megatron-core-fused"] = lambda logits, labels: fused.fused_vocab_parallel_cross_entropy(
            logits, labels, state.get_tensor_model_parallel_group()
        )
    if liger := optional_module("liger-kernel", "liger_kernel.transformers.functional"):
        entries["liger-kernel"] = lambda logits, labels: liger.liger_cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        )
    if engine := optional_module("transformer-engine", "transformer_engine.pytorch.cross_entropy"):
        entries["transformer-engine"] = lambda logits, labels: engine.parallel_cross_entropy(logits, labels)
    return entries


def norm_entries(weight: Tensor) -> dict[str, Implementation]:
    """``x [rows, H] -> [rows, H]``."""

    def eager(x: Tensor) -> Tensor:
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)

    entries: dict[str, Implementation] = {
        "ours": lambda x: rms_norm(x, weight, 1e-5),
        "eager": eager,
        "compile": _compiled(eager),
        "torch": lambda x: F.rms_norm(x, x.shape[-1:], weight, 1e-5),
    }
    if liger := optional_module("liger-kernel", "liger_kernel.ops.rms_norm"):
        entries["liger-kernel"] = lambda x: liger.LigerRMSNormFunction.apply(x, weight, 1e-5)
    return entries
