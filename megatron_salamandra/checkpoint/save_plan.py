"""What this rank writes in a save, and what ``.metadata`` says of all ranks' tensors.

The plan is Megatron-Core's (which copy of a replicated tensor is written by whom) in torch_dist's format. What depends
on the shapes alone is agreed on once: later saves compare their own part with the last one, and a single number over
all ranks says whether it is as it was.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import (
    ShardedBase,
    ShardedObject,
    apply_factories,
    is_main_replica,
)
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from megatron_salamandra.run_directory import CheckpointError

FILES_PER_RANK = 2
"""Written at the same time."""


@dataclass(frozen=True)
class Shape:
    """A block of a tensor as ``.metadata`` knows it; equal shapes need no new ``.metadata``."""

    key: str
    offset: tuple[int, ...]
    size: tuple[int, ...]
    whole: tuple[int, ...]
    dtype: torch.dtype | None
    """None for an object, which has a key only."""

    @property
    def bytes(self) -> int:
        """Size of a tensor's block; 0 for an object."""
        return 0 if self.dtype is None else math.prod(self.size) * self.dtype.itemsize

    @property
    def index(self) -> MetadataIndex:
        """By which ``.metadata`` finds where it lies."""
        return MetadataIndex(self.key) if self.dtype is None else MetadataIndex(self.key, self.offset)


@dataclass(frozen=True)
class Item:
    """A block and its contents: a tensor, or an object's bytes."""

    shape: Shape
    data: Tensor | bytes

    @property
    def bytes(self) -> int:
        """Size of the contents."""
        return (
            len(self.data) if isinstance(self.data, bytes) else self.data.numel() * self.data.element_size()
        )


@dataclass(frozen=True)
class RankPlan:
    """What this rank writes.

    Attributes:
        files: items of each file, in their order.
        common: what is no tensor, the same on all ranks.
        metadata: of all ranks' tensors, on rank 0; it does not say yet where they lie.
    """

    files: list[list[Item]]
    common: dict[str, Any]
    metadata: Metadata | None


class Planner:
    """Makes the plans of a run's saves."""

    def __init__(self) -> None:
        self._held: list[Shape] | None = None
        self._distribution: FullyParallelSaveStrategyWrapper | None = None
        self._metadata: Metadata | None = None

    def plan(self, state: dict[str, Any]) -> RankPlan:
        """Split a sharded state into files; collective.

        Args:
            state: of :func:`~megatron_salamandra.checkpoint.contents.sharded_state`.
        Raises:
            CheckpointError: on all ranks alike; ranks would write a tensor twice or not at all.
        """
        apply_factories(state)
        held = [_shape(value) for value in nested_values(state) if isinstance(value, ShardedBase)]
        changed = torch.tensor([held != self._held], dtype=torch.int32, device=torch.cuda.current_device())
        dist.all_reduce(changed)
        renew = bool(changed.item())
        if renew:
            self._held = None  # until there is a plan
        items, common = self._items(state, renew)
        if renew:
            mine = [item.shape for item in items]
            gathered: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
            dist.gather_object(mine, gathered)
            error = None
            if gathered is not None:
                try:
                    self._metadata = metadata_of(shape for theirs in gathered for shape in theirs)
                except Exception as failure:
                    error = failure
            _agree(error)
            self._held = held
        return RankPlan(_split(items), common, self._metadata)

    def _items(self, state: dict[str, Any], renew: bool) -> tuple[list[Item], dict[str, Any]]:
        """What of the state this rank writes, and what is no tensor; collective if ``renew``."""
        sharded, common = _preprocessed(state, renew)
        if renew or self._distribution is None:
            self._distribution = FullyParallelSaveStrategyWrapper(
                TorchDistSaveShardedStrategy("torch_dist", 1),
                parallel_state.get_data_parallel_group(with_context_parallel=True),
                do_cache_distribution=True,
            )
        self._distribution.apply_saving_parallelization(sharded)
        return [_item(value) for value in nested_values(sharded) if is_main_replica(value.replica_id)], common

    def bytes_of_rank(self, state: dict[str, Any]) -> int:
        """Size of the tensors that this rank would write, which a save from a device copies to the host.

        Whether the ranks' parts add up to the state is not looked at.
        """
        apply_factories(state)
        items, _ = self._items(state, renew=False)
        return sum(item.bytes for item in items if isinstance(item.data, Tensor))


def _preprocessed(state: dict[str, Any], validate: bool) -> tuple[Any, dict[str, Any]]:
    """Megatron-Core's split of a state into sharded and common parts; it validates on rank 0 alone."""
    if not validate:
        return cast(tuple[Any, dict[str, Any]], save_preprocess(state, False))
    parts, error = None, None
    try:
        parts = save_preprocess(state, True)
    except Exception as failure:
        error = failure
    _agree(error)
    return cast(tuple[Any, dict[str, Any]], parts)


def _agree(error: Exception | None) -> None:
    """See that no rank has failed; collective, so that none goes on without the others.

    Raises:
        CheckpointError: on all ranks alike, with what the first one that failed says.
    """
    told: list[Any] = [None] * dist.get_world_size()
    text = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
    dist.all_gather_object(told, None if error is None else text)
    for rank, said in enumerate(told):
        if said is not None:
            raise CheckpointError(f"the save cannot be planned: rank {rank}: {said}") from error


def _shape(part: ShardedBase) -> Shape:
    if isinstance(part, ShardedObject):
        return Shape(part.unique_key, (), (), (), None)
    size = (1,) * part.prepend_axis_num + tuple(part.local_shape)
    return Shape(part.key, tuple(part.global_offset), size, tuple(part.global_shape), part.dtype)


def _item(part: ShardedBase) -> Item:
    shape = _shape(part)
    if isinstance(part, ShardedObject):
        stream = io.BytesIO()
        torch.save([part.data], stream)
        return Item(shape, stream.getvalue())
    return Item(shape, part.data.detach().contiguous().view(shape.size))


def _split(items: list[Item]) -> list[list[Item]]:
    """Files of about the same size."""
    files: list[list[Item]] = [[] for _ in range(FILES_PER_RANK)]
    filled = [0] * FILES_PER_RANK
    for item in sorted(items, key=lambda item: -item.bytes):
        lightest = filled.index(min(filled))
        files[lightest].append(item)
        filled[lightest] += item.bytes
    return [file for file in files if file]


def metadata_of(shapes: Iterable[Shape]) -> Metadata:
    """What ``.metadata`` says of tensors and objects, but not yet where they lie.

    Raises:
        CheckpointError: blocks do not add up to their tensor, overlap or stick out.
    """
    entries: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    for shape in shapes:
        if shape.dtype is None:
            entries[shape.key] = BytesStorageMetadata()
            continue
        properties = TensorProperties(dtype=shape.dtype)
        entry = entries.setdefault(shape.key, TensorStorageMetadata(properties, torch.Size(shape.whole), []))
        assert isinstance(entry, TensorStorageMetadata)
        entry.chunks.append(ChunkStorageMetadata(torch.Size(shape.offset), torch.Size(shape.size)))
    for key, entry in entries.items():
        if isinstance(entry, TensorStorageMetadata):
            there, wanted = sum(math.prod(chunk.sizes) for chunk in entry.chunks), math.prod(entry.size)
            if there != wanted:
                raise CheckpointError(f"{key}: {there} elements would be saved of {wanted}")
            _check_blocks(key, entry)
    return Metadata(dict(entries))


def _check_blocks(key: str, entry: TensorStorageMetadata) -> None:
    """Sweep along the axis that tells most blocks apart, and compare each with those that are open there."""
    blocks = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in entry.chunks if math.prod(chunk.sizes)]
    for offset, size in blocks:
        if any(o < 0 or o + s > w for o, s, w in zip(offset, size, entry.size, strict=True)):
            raise CheckpointError(f"{key}: a block of {size} at {offset} sticks out of {tuple(entry.size)}")
    axes = range(len(entry.size))
    axis = max(axes, key=lambda axis: len({offset[axis] for offset, _ in blocks}), default=None)
    if axis is not None:
        blocks.sort(key=lambda block: block[0][axis])
    reached: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for offset, size in blocks:
        if axis is not None:
            reached = [(at, long) for at, long in reached if at[axis] + long[axis] > offset[axis]]
        for at, long in reached:
            if all(at[a] < offset[a] + size[a] and offset[a] < at[a] + long[a] for a in axes):
                raise CheckpointError(f"{key}: blocks of {long} at {at} and of {size} at {offset} overlap")
        reached.append((offset, size))
