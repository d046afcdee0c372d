"""What a rank tells other ranks: every collective and every message, in order."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import ProcessGroup, _resolve_process_group
from torch.utils._pytree import tree_iter

from megatron_salamandra.rehearsal.modules import ModuleTrail
from megatron_salamandra.rehearsal.results import Call, Group

_NAMES = {
    "broadcast_": "broadcast",
    "allreduce_": "all-reduce",
    "allreduce_coalesced_": "all-reduce",
    "allgather_": "all-gather",
    "_allgather_base_": "all-gather",
    "allgather_coalesced_": "all-gather",
    "allgather_into_tensor_coalesced_": "all-gather",
    "reduce_scatter_": "reduce-scatter",
    "_reduce_scatter_base_": "reduce-scatter",
    "reduce_scatter_tensor_coalesced_": "reduce-scatter",
    "reduce_": "reduce",
    "gather_": "gather",
    "scatter_": "scatter",
    "alltoall_": "all-to-all",
    "alltoall_base_": "all-to-all",
    "barrier": "barrier",
    "monitored_barrier_": "barrier",
    "send": "send",
    "recv_": "receive",
    "recv_any_source_": "receive",
}
_PEER = {"send": 2, "recv_": 2}
_OURS = ("megatron_salamandra", "salamandra_kernels", "megatron/core")
_PASSED_THROUGH = ("megatron_salamandra/rehearsal/", "megatron_salamandra/platform/")


class CallBook:
    """Writes down what is called; nothing of it is kept but sizes and places."""

    def __init__(self, trail: ModuleTrail) -> None:
        self.calls: list[Call] = []
        self._trail = trail
        self._forward_passes_before = 0
        self._groups: dict[str, Group] = {}

    def restart(self) -> None:
        """Forget all calls and count forward passes from here."""
        self.calls.clear()
        self._forward_passes_before = self._trail.forward_passes

    def note(self, func: Any, args: Sequence[Any]) -> None:
        """Write down one call of an operation of ``torch.ops.c10d``."""
        name = func._opname
        group = self._group(args)
        tensors = [part for part in tree_iter(args[:2]) if isinstance(part, Tensor)]
        # Of what goes in and what comes out the larger: the whole of what the group shares.
        first, second = (_bytes(arg) for arg in args[:2])
        asynchronous = name in ("send", "recv_", "recv_any_source_") or _flag(func, args, "async_op")
        peer = _PEER.get(name)
        self.calls.append(
            Call(
                name=_NAMES.get(name, name),
                group=group,
                dtype=str(tensors[0].dtype).removeprefix("torch.") if tensors else "",
                bytes=max(first, second) if name != "barrier" else 0,
                peer=None if peer is None else group.ranks[args[peer]],
                waits=not asynchronous,
                phase=self._trail.where().phase,
                forward_pass=self._trail.forward_passes - self._forward_passes_before,
                site=_site(),
            )
        )

    def _group(self, args: Sequence[Any]) -> Group:
        group = next(ProcessGroup.unbox(arg) for arg in args if _is_group(arg))
        known = self._groups.get(group.group_name)
        if known is None:
            resolved = _resolve_process_group(group.group_name)
            ranks = tuple(dist.get_process_group_ranks(resolved))
            known = self._groups[group.group_name] = Group(group.group_desc, ranks)
        return known


def _is_group(arg: Any) -> bool:
    return type(arg).__name__ == "ScriptObject" and arg._type().name() == "ProcessGroup"


def _bytes(arg: Any) -> int:
    return sum(part.numel() * part.element_size() for part in tree_iter(arg) if isinstance(part, Tensor))


def _flag(func: Any, args: Sequence[Any], name: str) -> bool:
    for number, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return bool(args[number] if number < len(args) else argument.default_value)
    return False


def _site() -> str:
    """Where it was called: the innermost line of ours or of Megatron-Core's."""
    for path, line, function in _frames():
        if any(passed in path for passed in _PASSED_THROUGH):
            continue
        for start in _OURS:
            if f"/{start}/" in path:
                return f"{start}{path.rpartition(f'/{start}')[2]}:{line} ({function})"
    return ""


def _frames() -> Iterator[tuple[str, int, str]]:
    frame = sys._getframe(1)
    while frame is not None:
        yield Path(frame.f_code.co_filename).as_posix(), frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
