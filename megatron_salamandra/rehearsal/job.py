"""A rehearsal: every distinct rank of a job, and whether they fit together."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Literal

from megatron_salamandra.config import Layout, RunConfig
from megatron_salamandra.foundation.progress import ProgressLine
from megatron_salamandra.rehearsal.distinct import distinct_ranks, seat_of, stage_ranks
from megatron_salamandra.rehearsal.errors import RehearsalError
from megatron_salamandra.rehearsal.matching import find_mismatches
from megatron_salamandra.rehearsal.one_rank import Performance, rehearse_rank
from megatron_salamandra.rehearsal.results import RankRehearsal, Rehearsal
from megatron_salamandra.rehearsal.usage import collectives_of, enough_micro_batches, messages_of

Ranks = Literal["unique", "all"] | Sequence[int]
_GIB = 2**30


def rehearse(
    config: RunConfig,
    world_size: int,
    ranks: Ranks = "unique",
    *,
    exact: bool = False,
    gpu_memory_gib: float | None = None,
    workers: int = 1,
    show_progress: bool = False,
) -> Rehearsal:
    """Run the trainer's code of ranks of a job, on tensors without contents.

    Of a run with phases the one with the largest micro-batches is rehearsed. Ranks are those of a job on GPUs, unless
    ``config.platform`` is ``host``.

    Args:
        world_size: ranks of the job.
        ranks: every distinct one, all, or those of these numbers.
        exact: run all micro-batches of a step, also where they repeat each other.
        gpu_memory_gib: what a rank's peak must fit into.
        workers: ranks at the same time, each in a process of its own if more than one.
        show_progress: one line on stderr.
    Raises:
        ConfigError: the layout does not fit the ranks or the batch.
        RehearsalError: a rank's code fails; names the rank, the phase and the module. What is wrong between ranks or
            with memory is in ``problems`` of the result.
    """
    config = _largest_phase(config)
    layout = config.validate_for_world(world_size)
    numbers = _numbers(layout, ranks)
    run = layout.micro_batches_per_step if exact else enough_micro_batches(layout)
    performances: dict[int, Performance] = {}
    line = ProgressLine(
        "rehearsing",
        lambda: len(performances),
        len(numbers),
        lambda _: [f"{len(performances)} of {len(numbers)} ranks"],
    )
    with line if show_progress else nullcontext():
        for performance in _performances(partial(rehearse_rank, config, world_size, run), numbers, workers):
            performances[performance.rank] = performance
    found = tuple(_rank(performances[number], layout, numbers, run) for number in numbers)
    said = {number: performances[number].calls for number in numbers}
    return Rehearsal(
        model=config.model.name,
        world_size=world_size,
        stages=layout.pipeline_parallel_size,
        layout=performances[numbers[0]].layout,
        micro_batches=layout.micro_batches_per_step,
        micro_batches_run=run,
        gpu_memory_gib=gpu_memory_gib,
        ranks=found,
        problems=(*find_mismatches(said, layout), *_what_does_not_fit(found, gpu_memory_gib)),
    )


def _largest_phase(config: RunConfig) -> RunConfig:
    phases = [config.in_phase(number) for number in range(len(config.phase_names))]
    return max(phases, key=lambda phase: phase.training.micro_batch_size * phase.data.sequence_length)


def _numbers(layout: Layout, ranks: Ranks) -> list[int]:
    if ranks == "unique":
        return distinct_ranks(layout)
    if ranks == "all":
        return list(range(layout.world_size))
    numbers = sorted({int(rank) for rank in ranks})
    if not numbers or numbers[0] < 0 or numbers[-1] >= layout.world_size:
        raise RehearsalError(f"ranks {numbers}: there are ranks 0 to {layout.world_size - 1}")
    return numbers


def _performances(
    perform: Callable[[int], Performance], numbers: Sequence[int], workers: int
) -> Iterator[Performance]:
    """Of each rank, as they come."""
    if min(workers, len(numbers)) == 1:
        yield from map(perform, numbers)
        return
    # One thread each: they would fight for the cores. A fork would take along what autograd keeps in threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(numbers)), context) as pool:
        yield from pool.map(perform, numbers)


def _rank(performance: Performance, layout: Layout, numbers: Sequence[int], run: int) -> RankRehearsal:
    seat = seat_of(performance.rank, layout)
    size = stage_ranks(layout)
    first = seat.pipeline_rank * size
    known = [number for number in numbers if first <= number < first + size]
    return RankRehearsal(
        rank=seat.rank,
        tensor_rank=seat.tensor_rank,
        pipeline_rank=seat.pipeline_rank,
        data_rank=seat.data_rank,
        # The last of those that were rehearsed stands for all that were not.
        stands_for=1 + (size - len(known) if seat.rank == known[-1] else 0),
        parameters=performance.parameters,
        peaks=performance.peaks,
        collectives=collectives_of(performance.calls, layout, run),
        messages=messages_of(performance.calls, layout, run),
        save_bytes=performance.save_bytes,
        seconds=performance.seconds,
    )


def _what_does_not_fit(ranks: Sequence[RankRehearsal], gpu_memory_gib: float | None) -> Iterator[str]:
    for rank in ranks:
        peak = rank.peak
        if gpu_memory_gib is not None and peak.total_bytes > gpu_memory_gib * _GIB:
            largest = peak.largest
            size = getattr(peak, f"{largest.value}_bytes")
            needed = f"{peak.total_bytes / _GIB:.2f} GiB in {peak.phase}"
            yield (
                f"rank {rank.rank} (stage {rank.pipeline_rank}) needs {needed}, and the GPU has {gpu_memory_gib:g}\n"
                f"  the largest part is {largest.value}, {size / _GIB:.2f} GiB"
            )
