"""Running tasks in worker processes: counted, stoppable, and never hanging on a worker that died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

from salamandra_data.errors import DataError

State = TypeVar("State")
Task = TypeVar("Task")
Result = TypeVar("Result")

DOCUMENTS, TEXT_BYTES, UNITS = range(3)
"""Places in the counters: documents and bytes of text done, and units of the pass's own measure of progress."""


class Counters:
    """Three numbers that every worker adds to and the parent shows; carries the request to stop."""

    def __init__(self, shared: Any, stop: Event) -> None:
        self._shared, self._stop = shared, stop

    def add(self, documents: int, text_bytes: int, units: int) -> None:
        """Count work done.

        Raises:
            Stopped: another worker failed or the run was interrupted.
        """
        if self._stop.is_set():
            raise Stopped
        with self._shared.get_lock():
            self._shared[DOCUMENTS] += documents
            self._shared[TEXT_BYTES] += text_bytes
            self._shared[UNITS] += units

    def values(self) -> tuple[int, int, int]:
        """Documents, bytes of text and units so far."""
        return self._shared[DOCUMENTS], self._shared[TEXT_BYTES], self._shared[UNITS]

    def stop(self) -> None:
        """Make the next ``add`` of each worker raise."""
        self._stop.set()


class WorkerDied(DataError):
    """A worker process ended from outside; what it had finished stays."""


class Stopped(Exception):
    """Raised inside a worker that was told to stop; never seen by a user."""


class WorkerPool(Generic[State]):
    """Runs ``function(state, counters, task)`` for many tasks in ``workers`` processes, or here if that is one.

    ``state`` reaches each process once. Processes are spawned, so threads of the parent do no harm.
    """

    def __init__(self, workers: int, state: State) -> None:
        self._workers, self._state = workers, state
        self._context = multiprocessing.get_context("spawn")
        self.counters = Counters(self._context.Array("Q", 3), self._context.Event())

    def run(
        self, function: Callable[[State, Counters, Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]:
        """Results in the order in which they are ready.

        Raises:
            DataError: raised by a task, or (:class:`WorkerDied`) a worker process died. Other tasks have ended by
                then.
        """
        if self._workers == 1:
            for task in tasks:
                yield function(self._state, self.counters, task)
            return
        executor = ProcessPoolExecutor(
            self._workers,
            mp_context=self._context,
            initializer=_start_worker,
            initargs=(self._state, self.counters),
        )
        try:
            yield from self._gather(executor, function, iter(tasks))
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a worker process was killed, most often for want of memory; finished shards stay\n"
                "  run the same command again to continue, with fewer --workers if memory was the reason"
            ) from error
        finally:
            self.counters.stop()
            executor.shutdown(wait=True, cancel_futures=True)

    def _gather(
        self,
        executor: ProcessPoolExecutor,
        function: Callable[[State, Counters, Task], Result],
        tasks: Iterator[Task],
    ) -> Iterator[Result]:
        running: set[Future[Result]] = set()
        while True:
            for task in tasks:
                running.add(executor.submit(_run_task, function, task))
                if len(running) >= 2 * self._workers:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


_worker: tuple[Any, Counters] | None = None


def _start_worker(state: Any, counters: Counters) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and tells by `stop`
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = (state, counters)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_task(function: Callable[[Any, Counters, Any], Any], task: Any) -> Any:
    assert _worker is not None, "runs in a pool's process only"
    state, counters = _worker
    return function(state, counters, task)
