"""The optimizer's state as this rank holds it, cut such that it can be written where it is.

The distributed optimizer gives each data-parallel rank a stretch of every flattened parameter. Megatron-Core's
``fully_reshardable`` format gathers the stretches of all ranks before a save, so that each parameter is one block: for
12 bytes per parameter training stands still, and every rank holds the state of all. Here a stretch is written as the
few blocks it consists of (the rest of a row, whole rows, the beginning of a row). Keys, shapes and values are those of
``fully_reshardable``, and so is the way to load it: torch_dist joins blocks of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

FORMAT = "fully_reshardable"
Block = tuple[tuple[int, ...], tuple[int, ...]]
"""Offset and size in a tensor."""


def state_in_pieces(optimizer: MegatronOptimizer, model_state: dict[str, Any]) -> dict[str, Any] | None:
    """What ``optimizer.sharded_state_dict`` makes for a save, without communication and copies.

    Args:
        model_state: sharded state of the model's chunks, by their keys.
    Returns:
        None for an optimizer, or weights, that do not lie as described; let Megatron-Core gather them.
    """
    inner = optimizer.chained_optimizers if isinstance(optimizer, ChainedOptimizer) else [optimizer]
    if len(inner) != 1 or not isinstance(inner[0], DistributedOptimizer):
        return None
    (sharded,) = inner
    weights = {}
    for value in nested_values(model_state):
        if isinstance(value, ShardedTensor | ShardedTensorFactory) and value.data is not None:
            weights[value.data] = value
    # Over all parameters, so that all ranks that would gather together decide alike.
    places: dict[Tensor, list[tuple[int, ShardedTensor]]] = {}
    for buffer in sharded.buffers:
        for parameter in buffer.param_index_map:
            metadata = weights.get(parameter)
            shards = None if metadata is None else _shards(parameter, metadata)
            if shards is None:
                return None
            places[parameter] = shards
    pieces: list[ShardedTensor] = []
    for parameter, stretch in _stretches(sharded):
        shards = places[parameter]
        replica = (*shards[0][1].replica_id[:2], sharded.distributed_optimizer_instance_id)
        for name, tensor in sharded._get_main_param_and_optimizer_states(parameter).items():
            if name != "step":  # lies in the parameter groups
                pieces += _cut(tensor, stretch, shards, f"optimizer.state.{name}.", replica)
    return {
        **sharded.state_dict(),
        "param_state": dict(enumerate(pieces)),
        "param_state_sharding_type": FORMAT,
    }


def _stretches(optimizer: DistributedOptimizer) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Parameters of which this rank has a stretch, with its beginning and end in the flattened parameter."""
    for by_dtype in optimizer.gbuf_ranges:
        for buckets in by_dtype.values():
            for bucket in buckets:
                for parameter, ranges in bucket["param_map"].items():
                    yield parameter, (ranges["param"].start, ranges["param"].end)


def _shards(
    parameter: Tensor, metadata: ShardedTensor | ShardedTensorFactory
) -> list[tuple[int, ShardedTensor]] | None:
    """What a parameter is saved as, and where in the flattened parameter each begins; None if it is not contiguous."""
    built = metadata.build() if isinstance(metadata, ShardedTensorFactory) else [metadata]
    shards = []
    for shard in nested_values({"": built}):
        data = shard.data
        if not data.is_contiguous() or _storage(data) != _storage(parameter):
            return None
        # By offsets, which tensors without contents have too.
        shards.append((data.storage_offset() - parameter.storage_offset(), shard))
    return shards


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _cut(
    tensor: Tensor,
    stretch: tuple[int, int],
    shards: list[tuple[int, ShardedTensor]],
    prefix: str,
    replica: tuple[int, ...],
) -> Iterator[ShardedTensor]:
    flat, first = tensor.view(-1), stretch[0]
    for begins, shard in shards:
        lead, shape = shard.prepend_axis_num, tuple(shard.local_shape)
        start = max(stretch[0], begins)
        end = min(stretch[1], begins + math.prod(shape))
        if start >= end:
            continue
        done = start - first
        for offset, size in blocks_of_stretch(shape, start - begins, end - begins):
            count = math.prod(size)
            block = (1,) * lead + size
            where = shard.global_offset[:lead] + tuple(
                a + b for a, b in zip(shard.global_offset[lead:], offset, strict=True)
            )
            yield replace(
                shard,
                key=prefix + shard.key,
                data=flat[done : done + count].view(block),
                dtype=tensor.dtype,
                local_shape=block,
                global_offset=where,
                axis_fragmentations=None,
                prepend_axis_num=0,
                replica_id=replica,
            )
            done += count


def blocks_of_stretch(shape: tuple[int, ...], start: int, end: int) -> list[Block]:
    """The blocks that elements ``start`` to ``end`` of a flattened tensor consist of, in their order.

    At most two for each dimension but the last, and one more.
    """
    if start >= end:
        return []
    if len(shape) == 1:
        return [((start,), (end - start,))]
    row = math.prod(shape[1:])
    blocks: list[Block] = []

    def part_of_row(number: int, begin: int, stop: int) -> None:
        inner = blocks_of_stretch(shape[1:], begin - number * row, stop - number * row)
        blocks.extend(((number, *offset), (1, *size)) for offset, size in inner)

    if start % row:
        stop = min(end, (start // row + 1) * row)
        part_of_row(start // row, start, stop)
        start = stop
    whole = (end - start) // row
    if whole > 0:
        blocks.append(((start // row, *(0 for _ in shape[1:])), (whole, *shape[1:])))
        start += whole * row
    if start < end:
        part_of_row(start // row, start, end)
    return blocks
