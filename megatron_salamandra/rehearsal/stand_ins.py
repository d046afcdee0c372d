"""What stands in the place of contents and of other ranks, while a rank is rehearsed on tensors without contents.

Nothing of this changes which operations run, on which shapes, in which order. It answers what the trainer asks a
tensor's contents for (a loss, a norm, whether labels are in range), says that tensors are on a GPU where the job is
meant for GPUs, so that what is written for them runs, and lets collectives over Python objects return.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing import ShardedTensor, state_dict_utils
from megatron.core.dist_checkpointing.strategies import fully_parallel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

_RUN_BACKWARD = "_engine_run_backward"
_IS_SO = "rehearsed_as_true"
"""Mark of what is true: checks ask whether all is right, or there is any; whether anything is wrong is false."""
_IS_CUDA: Any = vars(torch._C.TensorBase)["is_cuda"].__get__
_OPTIMIZER = "optimizer."
"""Beginning of the keys of the optimizer's state."""
_CONTENTS: dict[Any, Any] = {
    Tensor.item: 1.0,
    Tensor.__float__: 1.0,
    Tensor.__int__: 1,
    Tensor.__index__: 1,
}


class Contents(TorchFunctionMode):
    """Answers questions for the contents of tensors that have none.

    Args:
        on_gpu: whether tensors say that they lie on a GPU.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        super().__init__()
        self._on_gpu = on_gpu

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if args and isinstance(args[0], FakeTensor):
            tensor = args[0]
            if func in _CONTENTS:
                return _CONTENTS[func]
            if func is Tensor.__bool__:
                return getattr(tensor, _IS_SO, False)
            if func in (Tensor.all, Tensor.gt, Tensor.__gt__):
                found = func(*args, **dict(kwargs or {}))
                setattr(found, _IS_SO, True)
                return found
            if func is Tensor.tolist:
                return _ones(tuple(tensor.shape))
            if self._on_gpu and func == _IS_CUDA:
                return True
        if func is torch.tensor and isinstance(args[0], list):
            # Megatron-Core makes a vector of norms this way, which reads each of them.
            args = (_without_contents(args[0]), *args[1:])
        return func(*args, **dict(kwargs or {}))


@contextlib.contextmanager
def contents(*, on_gpu: bool) -> Iterator[None]:
    """:class:`Contents`, also in backward passes: torch takes modes away in what it starts through one."""
    real = getattr(torch.autograd, _RUN_BACKWARD)

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        with Contents(on_gpu=on_gpu):
            return real(*args, **kwargs)

    with mock.patch.object(torch.autograd, _RUN_BACKWARD, run_backward), Contents(on_gpu=on_gpu):
        yield


def _without_contents(given: Any) -> Any:
    if isinstance(given, list | tuple):
        return [_without_contents(part) for part in given]
    return 1.0 if isinstance(given, FakeTensor) else given


def _ones(shape: tuple[int, ...]) -> Any:
    return [_ones(shape[1:]) for _ in range(shape[0])] if shape else 1.0


@contextlib.contextmanager
def other_ranks_agree() -> Iterator[None]:
    """Collectives over Python objects return what this rank has given, as if all ranks had given the same."""

    def all_gather_object(found: list[Any], mine: Any, group: Any = None) -> None:
        own = dist.get_rank(group)
        found[:] = [mine if rank == own else _as_rank(mine, rank) for rank in range(len(found))]

    def gather_object(mine: Any, found: list[Any] | None = None, *_: Any, **__: Any) -> None:
        if found is not None:
            found[:] = [mine] * len(found)

    def broadcast_object_list(objects: list[Any], *_: Any, **__: Any) -> None:
        return None

    def validate(*_: Any, **__: Any) -> None:
        return None  # whether blocks add up cannot be seen from one rank

    with (
        mock.patch.object(state_dict_utils, "validate_sharding_integrity", validate),
        mock.patch.object(fully_parallel, "validate_sharding_integrity", validate),
        mock.patch.object(dist, "all_gather_object", all_gather_object),
        mock.patch.object(dist, "gather_object", gather_object),
        mock.patch.object(dist, "broadcast_object_list", broadcast_object_list),
    ):
        yield


def _as_rank(mine: Any, rank: int) -> Any:
    """What another rank of the group would give where this one gives ``mine``.

    Of a state that is saved the data-parallel ranks hold copies of weights, and each has an equal share of the
    optimizer's state that nobody else has.
    """
    if not (isinstance(mine, list) and mine and all(isinstance(part, ShardedTensor) for part in mine)):
        return mine
    return [
        replace(part, key=f"{part.key} of {rank}")
        if part.key.startswith(_OPTIMIZER)
        else replace(part, replica_id=(*part.replica_id[:-1], rank))
        for part in mine
    ]


@contextlib.contextmanager
def modules_stay_where_they_are() -> Iterator[None]:
    """``Module.to`` and its like on modules whose weights are that already.

    torch swaps weights without contents by their Python objects, which it refuses for those that are watched.
    """
    real: Any = nn.Module._apply

    def apply(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        own = [tensor for tensor in (*self.parameters(), *self.buffers()) if tensor is not None]
        if all(change(tensor) is tensor for tensor in own):
            return self
        moved: nn.Module = real(self, change, recurse)
        return moved

    with mock.patch.object(nn.Module, "_apply", apply):
        yield
