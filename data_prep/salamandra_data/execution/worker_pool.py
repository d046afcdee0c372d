"""Running tasks in worker processes: counted, stoppable, and never hanging on a worker that died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

from megatron_salamandra.foundation.parents import end_with_parent
from megatron_salamandra.foundation.signals import interruption_deferred, interruption_unseen_by_children
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

    def units(self) -> int:
        """Units so far."""
        return int(self._shared[UNITS])

    def rates(self, seconds: float) -> list[str]:
        """Documents and text so far and per second, for a progress line."""
        documents, text_bytes, _ = self.values()
        return [
            f"{documents:,} documents",
            f"{text_bytes / 1e6 / seconds:,.1f} MB/s",
            f"{documents / seconds:,.0f} documents/s",
        ]

    def reset(self) -> None:
        """Begin again at zero, between passes."""
        with self._shared.get_lock():
            self._shared[:] = [0, 0, 0]

    def stop(self) -> None:
        """Make the next ``add`` of each worker raise."""
        self._stop.set()


class WorkerDied(DataError):
    """A worker process ended from outside; what it had finished stays."""


class Stopped(Exception):
    """Raised inside a worker that is to stop; never seen by a user."""


class WorkerPool(Generic[State]):
    """Runs ``function(state, counters, task)`` for many tasks in ``workers`` processes, or here if that is one.

    ``state`` reaches each process once. Processes are forked as long as this one has a single thread, so that they need
    not import and load what it has; else they are spawned, since a fork would keep the locks that other threads hold.
    Each has a connection of its own, so that one that dies at any moment is noticed and keeps no other waiting: with
    the queues of ``concurrent.futures``, which all share, neither is sure.
    """

    def __init__(self, workers: int, state: State) -> None:
        self._workers, self._state = workers, state
        self._context = multiprocessing.get_context("spawn")
        self.counters = Counters(self._context.Array("Q", 3), self._context.Event())
        self._kept: list[_Worker] | None = None

    @contextmanager
    def workers_kept(self) -> Iterator[None]:
        """Processes that :meth:`run` starts in the block serve every later call in it, and end with it."""
        self._kept = []
        try:
            yield
        finally:
            workers, self._kept = self._kept, None
            self._end(workers)

    def run(
        self,
        function: Callable[[State, Counters, Task], Result],
        tasks: Iterable[Task],
        most: int | None = None,
    ) -> Iterator[Result]:
        """Results in the order in which they are ready.

        Args:
            function: a function of a module.
            tasks: what to do.
            most: processes that are of use, where that is known.

        An interruption (Ctrl-C, SIGTERM) makes workers stop where they are and is raised when they have; a second one
        meanwhile kills them.

        Raises:
            DataError: raised by a task, or (:class:`WorkerDied`) a worker process died. Other tasks have ended by
                then.
        """
        count = min(self._workers, most or self._workers)
        if count == 1:
            for task in tasks:
                yield function(self._state, self.counters, task)
            return
        workers: list[_Worker] = [] if self._kept is None else self._kept
        try:
            self._have(count, workers)
            yield from _spread(workers[:count], function, iter(tasks))
        finally:
            if self._kept is None:
                self._end(workers)

    def start(self, most: int) -> None:
        """Start the processes that :meth:`run` would, before this process has other threads, to fork them.

        Args:
            most: as for :meth:`run`. Only in a block of :meth:`workers_kept`.
        """
        assert self._kept is not None
        if (count := min(self._workers, most)) > 1:
            self._have(count, self._kept)

    def _have(self, count: int, workers: list[_Worker]) -> None:
        while len(workers) < count:
            with interruption_unseen_by_children():
                workers.append(self._started([worker.connection for worker in workers]))

    def _end(self, workers: Sequence[_Worker]) -> None:
        with interruption_deferred(kill=[worker.process for worker in workers]):
            self.counters.stop()
            for worker in workers:
                worker.connection.close()
            for worker in workers:
                worker.process.join()

    def _started(self, others: Sequence[Connection[Any, Any]]) -> _Worker:
        ours, theirs = self._context.Pipe()
        if _threads() == 1:
            process: BaseProcess = multiprocessing.get_context("fork").Process(
                target=_work_forked, args=(self._state, self.counters, theirs, [ours, *others]), daemon=True
            )
        else:
            process = self._context.Process(
                target=_work, args=(self._state, self.counters, theirs), daemon=True
            )
        process.start()
        theirs.close()  # or its end would not be noticed
        return _Worker(process, ours)


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection[Any, Any]

    def give(self, function: Callable[..., Any], task: Any) -> None:
        try:
            self.connection.send((function, task))
        except OSError as error:
            raise self._died() from error

    def result(self) -> Any:
        """What its task returned; raises what it raised."""
        try:
            succeeded, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if not succeeded:
            raise value
        return value

    def _died(self) -> WorkerDied:
        self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            how = "was killed, most often because memory ran out"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}; its reason may stand above"
        return WorkerDied(
            f"a worker process {how}; finished shards stay\n"
            "  run the same command again to continue, with fewer --workers if memory was the reason"
        )


def _spread(
    workers: Sequence[_Worker], function: Callable[[State, Counters, Task], Result], tasks: Iterator[Task]
) -> Iterator[Result]:
    """Give each worker a task whenever it has none; results as they come."""
    idle, busy = list(workers), dict[Any, _Worker]()
    results: list[Result] = []
    while True:
        for task in islice(tasks, len(idle)):
            worker = idle.pop()
            worker.give(function, task)
            busy[worker.connection] = worker
        yield from results  # now, when nobody waits for a task
        if not busy:
            return
        worker = busy.pop(wait(list(busy))[0])
        idle.append(worker)
        results = [worker.result()]


def _threads() -> int:
    """Of this process, those of libraries included; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _work_forked(
    state: Any,
    counters: Counters,
    connection: Connection[Any, Any],
    parents: Sequence[Connection[Any, Any]],
) -> None:
    """As :func:`_work`, in a process that was forked: without what is its parent's alone."""
    end_with_parent()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):  # a handler of the parent's
            signal.signal(number, signal.SIG_DFL)
    for other in parents:
        other.close()  # or their workers would never see them end
    _work(state, counters, connection)


def _work(state: Any, counters: Counters, connection: Connection[Any, Any]) -> None:
    """Do tasks until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, by `stop`
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            function, task = connection.recv()
            connection.send(_outcome(function, state, counters, task))
    except (EOFError, OSError):
        return


def _outcome(function: Callable[..., Any], state: Any, counters: Counters, task: Any) -> tuple[bool, Any]:
    """Whether the task succeeded, and its result or its exception."""
    try:
        counters.add(0, 0, 0)  # raises when there is no more to do
        return True, function(state, counters, task)
    except Exception as error:
        if not isinstance(error, DataError):
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return False, error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
