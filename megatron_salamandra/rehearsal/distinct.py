"""Which ranks of a job differ, and how many are like each of them."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.config import Layout


@dataclass(frozen=True)
class Seat:
    """Where a rank stands: Megatron-Core counts tensor ranks first, then data, then pipeline."""

    rank: int
    tensor_rank: int
    data_rank: int
    pipeline_rank: int


def seat_of(rank: int, layout: Layout) -> Seat:
    """Where ``rank`` stands in the grid."""
    rest, tensor = divmod(rank, layout.tensor_parallel_size)
    pipeline, data = divmod(rest, layout.data_parallel_size)
    return Seat(rank, tensor, data, pipeline)


def stage_ranks(layout: Layout) -> int:
    """Ranks of one pipeline stage."""
    return layout.tensor_parallel_size * layout.data_parallel_size


def distinct_ranks(layout: Layout) -> list[int]:
    """The first and the last rank of every pipeline stage.

    Ranks of a stage hold tensors of the same shapes, because everything that tensor parallelism splits divides evenly.
    What sets them apart is being the first (who writes what all have, who counts what all have) or the last (whose
    share of the optimizer is what remains).
    """
    size = stage_ranks(layout)
    ends = {0, size - 1}
    return sorted(stage * size + end for stage in range(layout.pipeline_parallel_size) for end in ends)
