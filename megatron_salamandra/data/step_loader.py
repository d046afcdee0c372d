"""The micro-batches of each step for one data-parallel rank, read ahead by a background thread.

The timeline of the run says which consecutive samples of the stream a step trains on. If they start at s, micro-batch
m of data-parallel rank r holds samples ``s + (m * R + r) * B + i`` for i in 0 .. B - 1, with R ranks and micro-batch
size B. So every step sees the same samples whatever R and B are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from megatron_salamandra.data.documents import DocumentRules
from megatron_salamandra.data.micro_batch import MicroBatch, micro_batch
from megatron_salamandra.data.sample_stream import SampleStream
from megatron_salamandra.timeline import Timeline

LOGGER = logging.getLogger("salamandra")

CLOSE_SECONDS = 2.0
"""How long closing waits for a read in progress: what follows may be the save before the job is killed."""

REMOTE_READERS = 8
"""Requests of a rank in flight at once where shards are behind URLs. Local files are read by one thread: there the
time is Python's own, which threads only lengthen."""


class StepLoader:
    """Hands out the rank's micro-batches step by step.

    Args:
        stream: where samples come from.
        timeline: which samples each step takes.
        micro_batch_size: samples per micro-batch.
        data_parallel_rank: this rank, from 0.
        data_parallel_size: number of data-parallel ranks.
        first_step: steps done before; resuming is naming them. The steps behind it up to the end of their phase can be
            handed out: another phase is another stream.
        prefetch_steps: how many steps are ready or being read at most, besides those handed out.
        documents: how the ends of documents count; not at all when not given.

    Raises:
        ValueError: a global batch does not divide into whole micro-batches, the rank is out of range, or no step is
            left.
    """

    def __init__(
        self,
        stream: SampleStream,
        *,
        timeline: Timeline,
        micro_batch_size: int,
        data_parallel_rank: int,
        data_parallel_size: int,
        first_step: int = 0,
        prefetch_steps: int = 2,
        documents: DocumentRules | None = None,
    ) -> None:
        if min(micro_batch_size, data_parallel_size, prefetch_steps) < 1:
            raise ValueError(
                "micro_batch_size, data_parallel_size and prefetch_steps must be at least 1; got "
                f"micro_batch_size={micro_batch_size}, data_parallel_size={data_parallel_size}, "
                f"prefetch_steps={prefetch_steps}"
            )
        phase = timeline.phase(first_step + 1)
        for segment in timeline.segments:
            if segment.phase == phase and segment.batch_size % (micro_batch_size * data_parallel_size):
                raise ValueError(
                    f"a global batch of {segment.batch_size} is not a multiple of micro_batch_size * "
                    f"data_parallel_size = {micro_batch_size} * {data_parallel_size}"
                )
        if not 0 <= data_parallel_rank < data_parallel_size:
            raise ValueError(
                f"data_parallel_rank = {data_parallel_rank} is outside [0, {data_parallel_size})"
            )
        self._stream = stream
        self._micro_batch_size = micro_batch_size
        self._timeline = timeline
        self._last_step = timeline.last_step(phase)
        self._rank = data_parallel_rank
        self._ranks = data_parallel_size
        self._prefetch_steps = prefetch_steps
        self._documents = documents
        self._readers = REMOTE_READERS if stream.remote else 1
        self.steps_done = first_step  # before the step that next_step() returns next
        self.wait_seconds = 0.0  # how long the last next_step() kept the trainer waiting

        self._changed = threading.Condition()  # guards the three fields below
        self._ready: deque[list[MicroBatch]] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._read_ahead, name="step-loader", daemon=True)
        self._thread.start()

    def next_step(self) -> list[MicroBatch]:
        """Return the micro-batches of the next step, in the order they are to be run.

        Raises:
            DataError: a shard could not be read; names its path. Raised at the step that needs it, after the
                steps before it have been handed out, and again at any further call.
            RuntimeError: the loader is closed.
            ValueError: the phase has no further step.
        """
        if self.steps_done >= self._last_step:
            raise ValueError(f"step {self._last_step:,} is the last one of its phase")
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure or self._closed)
            if self._closed:
                raise RuntimeError("the step loader is closed")
            if not self._ready:
                assert self._failure is not None
                raise self._failure
            batches = self._ready.popleft()
            self._changed.notify_all()
        self.steps_done += 1
        self.wait_seconds = time.perf_counter() - started
        return batches

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`next_step` would hand out a step without waiting."""
        return bool(self._ready)

    def close(self) -> None:
        """Stop reading ahead and drop what was read. May be called twice.

        Samples being read are waited for, their steps are not. A read that takes longer than
        :data:`CLOSE_SECONDS` is left behind with a warning, and ends by itself or with the process.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            LOGGER.warning(
                "reading ahead was still waiting for storage after %g s and is left behind", CLOSE_SECONDS
            )

    def __enter__(self) -> StepLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read_ahead(self) -> None:
        for step in range(self.steps_done + 1, self._last_step + 1):
            with self._changed:
                self._changed.wait_for(lambda: len(self._ready) < self._prefetch_steps or self._closed)
            try:
                batches = self._read_step(step)
            except BaseException as error:  # handed to the trainer, whatever it is
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                if self._closed:
                    return
                self._ready.append(batches)
                self._changed.notify_all()

    def _read_step(self, step: int) -> list[MicroBatch]:
        """The rank's micro-batches of a step; without meaning if the loader is closed meanwhile."""
        size, whole = self._micro_batch_size, self._timeline.step_samples(step)
        samples = [
            whole[first + row]
            for first in range(self._rank * size, len(whole), self._ranks * size)
            for row in range(size)
        ]
        windows = np.empty((len(samples), self._stream.sequence_length + 1), dtype=np.int64)
        self._read_samples(samples, windows)
        return [
            micro_batch(windows[first : first + size], documents=self._documents)
            for first in range(0, len(samples), size)
        ]

    def _read_samples(self, samples: list[int], windows: NDArray[np.int64]) -> None:
        failures: list[BaseException] = []
        readers = min(self._readers, len(samples))

        def read_every(first: int) -> None:
            try:
                for row in range(first, len(samples), readers):
                    if self._closed or failures:
                        return
                    windows[row] = self._stream.sample(samples[row])
            except BaseException as error:
                failures.append(error)

        # Not a pool: the interpreter waits for a pool's threads at its end, and one may hang in a read.
        threads = [threading.Thread(target=read_every, args=(n,), daemon=True) for n in range(1, readers)]
        for thread in threads:
            thread.start()
        read_every(0)
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
