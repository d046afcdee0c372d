"""When each rank of a pipeline does what: one forward one backward, plain or interleaved, as Megatron-Core orders them.

The order on each rank is fixed; a pass begins when the rank is free and what it needs has arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_SETTLED_ROUNDS = 3
"""Rounds of the pipeline after which every further one takes as long as the one before."""


@dataclass(frozen=True)
class Pass:
    """One forward or backward pass of one chunk and micro-batch."""

    rank: int
    forward: bool
    chunk: int
    micro_batch: int
    start: float
    end: float


@dataclass(frozen=True)
class Timing:
    """Seconds of each stage for one micro-batch, in the order a token passes them, and of one message between two."""

    forward: Sequence[float]
    backward: Sequence[float]
    message: float = 0.0


def pipeline_passes(timing: Timing, ranks: int, micro_batches: int) -> list[Pass]:
    """Every pass of a step; those of one rank in the order of time.

    Args:
        timing: stage i is on rank i modulo ``ranks``.
        micro_batches: of a step; a multiple of ``ranks`` if stages are interleaved.

    Raises:
        ValueError: the interleaved schedule cannot divide the micro-batches.
    """
    chunks = len(timing.forward) // ranks
    seconds = [*timing.forward], [*timing.backward]
    free = [0.0] * ranks
    passes: list[Pass] = []
    for place in _places(ranks, chunks, micro_batches):
        start = free[place.rank]
        if place.needs is not None:
            arrival = passes[place.needs].end + (timing.message if place.from_another_stage else 0.0)
            start = max(start, arrival)
        end = start + seconds[not place.forward][place.chunk * ranks + place.rank]
        free[place.rank] = end
        passes.append(Pass(place.rank, place.forward, place.chunk, place.micro_batch, start, end))
    return passes


def pipeline_seconds(timing: Timing, ranks: int, micro_batches: int) -> float:
    """From the first pass to the end of the last; long steps are continued from their steady state."""
    if micro_batches // ranks <= _SETTLED_ROUNDS + 1:
        return max(one.end for one in pipeline_passes(timing, ranks, micro_batches))
    short, longer = (
        max(one.end for one in pipeline_passes(timing, ranks, count * ranks))
        for count in (_SETTLED_ROUNDS, _SETTLED_ROUNDS + 1)
    )
    per_micro_batch = (longer - short) / ranks
    return short + per_micro_batch * (micro_batches - _SETTLED_ROUNDS * ranks)


@dataclass(frozen=True)
class _Place:
    """A pass before it has a time.

    Attributes:
        needs: number of the pass whose result it takes; None for the first stage.
    """

    rank: int
    forward: bool
    chunk: int
    micro_batch: int
    needs: int | None
    from_another_stage: bool


@lru_cache(maxsize=256)
def _places(ranks: int, chunks: int, micro_batches: int) -> tuple[_Place, ...]:
    """All passes, each behind those that it waits for: what it needs, and the one before it on its rank."""
    if chunks > 1 and micro_batches % ranks:
        raise ValueError(f"{micro_batches} micro-batches are no multiple of {ranks} interleaved ranks")
    orders = [list(_order(rank, ranks, chunks, micro_batches)) for rank in range(ranks)]
    last = ranks * chunks - 1
    number: dict[tuple[bool, int, int], int] = {}
    places: list[_Place] = []
    position = [0] * ranks
    while len(places) < sum(map(len, orders)):
        before = len(places)
        for rank, order in enumerate(orders):
            while position[rank] < len(order):
                forward, chunk, micro_batch = order[position[rank]]
                stage = chunk * ranks + rank
                # The last stage's backward needs its own forward; everything else a neighbour's pass.
                own = not forward and stage == last
                source = (forward or own, stage if own else stage + (-1 if forward else 1), micro_batch)
                first = forward and stage == 0
                if not first and source not in number:
                    break
                number[forward, stage, micro_batch] = len(places)
                needs = None if first else number[source]
                places.append(_Place(rank, forward, chunk, micro_batch, needs, not own))
                position[rank] += 1
        assert len(places) > before, "ranks wait for each other"
    return tuple(places)


def _order(rank: int, ranks: int, chunks: int, micro_batches: int) -> Iterator[tuple[bool, int, int]]:
    """Direction, chunk and micro-batch, in the order in which the rank takes them."""
    total = micro_batches * chunks
    after = ranks - rank - 1
    warmup = min(total, after if chunks == 1 else 2 * after + (chunks - 1) * ranks)

    def virtual(number: int, forward: bool) -> tuple[bool, int, int]:
        if chunks == 1:
            return forward, 0, number
        within = number % (ranks * chunks)
        chunk = within // ranks
        micro_batch = number // (ranks * chunks) * ranks + within % ranks
        return forward, chunk if forward else chunks - 1 - chunk, micro_batch

    for number in range(warmup):
        yield virtual(number, True)
    for number in range(total - warmup):
        yield virtual(warmup + number, True)
        yield virtual(number, False)
    for number in range(total - warmup, total):
        yield virtual(number, False)
