"""What a rank's calls add up to in a step, with the micro-batches that were not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from megatron_salamandra.config import Layout
from megatron_salamandra.rehearsal.results import Call, CollectiveUse, MessageUse


def enough_micro_batches(layout: Layout) -> int:
    """So many that the pipeline is filled and then does the same at least twice; no more than there are."""
    stages = layout.pipeline_parallel_size
    enough = stages + 2 if layout.model_chunks == 1 else 3 * stages
    return min(layout.micro_batches_per_step, enough)


def collectives_of(calls: Sequence[Call], layout: Layout, run: int) -> tuple[CollectiveUse, ...]:
    """Collectives of a step, by kind, in the order in which they first come.

    Args:
        calls: of a step with ``run`` micro-batches.
    """
    counts: Counter[tuple[str, str, int, str]] = Counter()
    sizes: Counter[tuple[str, str, int, str]] = Counter()
    for call, times in _repeated(calls, layout, run):
        if call.peer is None:
            kind = call.name, call.group.name, len(call.group.ranks), call.dtype
            counts[kind] += times
            sizes[kind] += times * call.bytes
    return tuple(CollectiveUse(*kind, count, sizes[kind]) for kind, count in counts.items())


def messages_of(calls: Sequence[Call], layout: Layout, run: int) -> tuple[MessageUse, ...]:
    """Messages of a step, by kind; see :func:`collectives_of`."""
    counts: Counter[tuple[str, int, str]] = Counter()
    sizes: Counter[tuple[str, int, str]] = Counter()
    for call, times in _repeated(calls, layout, run):
        if call.peer is not None:
            kind = call.name, call.peer, call.dtype
            counts[kind] += times
            sizes[kind] += times * call.bytes
    return tuple(MessageUse(*kind, count, sizes[kind]) for kind, count in counts.items())


def _repeated(calls: Sequence[Call], layout: Layout, run: int) -> Iterator[tuple[Call, int]]:
    """Each call, and how often it comes in a step with all micro-batches.

    A filled pipeline does the same for every micro-batch; an interleaved one for every round of as many micro-batches
    as there are stages. What was called between two of the last forward passes, a period apart, is what repeats.
    """
    chunks = layout.model_chunks
    together = layout.pipeline_parallel_size if chunks > 1 else 1
    more = (layout.micro_batches_per_step - run) // together
    passes = run * chunks
    for call in calls:
        in_period = passes - together * chunks <= call.forward_pass < passes
        yield call, 1 + more if in_period else 1
