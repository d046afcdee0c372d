"""The thread that writes metrics, so that no step waits for the run's file system."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial

from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import SinkList
from megatron_salamandra.training.report import LanguageScore

LOGGER = logging.getLogger("salamandra")
HELD_BACK = 1000
"""Steps that wait to be written at most; training waits for the file system from there on."""

_WRITING = threading.RLock()
"""Held while a sink is called. A process that is forked for a save finds no log or file in the middle of a write."""
os.register_at_fork(
    before=_WRITING.acquire, after_in_parent=_WRITING.release, after_in_child=_WRITING.release
)


class SinkThread:
    """Calls a :class:`SinkList` in a thread of its own, in the order of the calls here.

    What was handed over is lost if the process is killed meanwhile. :meth:`drain` before a save keeps what is promised
    of a crash: no checkpoint is of a step that is not written.
    """

    def __init__(self, sinks: SinkList) -> None:
        self._sinks = sinks
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue(HELD_BACK)
        self._thread: threading.Thread | None = None
        self._closed = False

    def open(self, step: int) -> None:
        """See :meth:`SinkList.open`; returns when all of them are ready, or have failed."""
        self._hand_over(partial(self._sinks.open, step))
        self.drain()

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        """See :meth:`SinkList.write`; does not wait, and the caller must not change ``metrics`` any more."""
        self._hand_over(partial(self._sinks.write, step, metrics))

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """See :meth:`SinkList.write_validation`; does not wait."""
        self._hand_over(partial(self._sinks.write_validation, step, scores))

    def drain(self) -> None:
        """Wait until everything that was handed over is written, or has failed."""
        self._calls.join()

    def close(self) -> None:
        """Write what is left, close the sinks and end the thread."""
        self._hand_over(self._close)
        assert self._thread is not None
        self._thread.join()
        self._thread, self._closed = None, False

    def _close(self) -> None:
        self._closed = True
        self._sinks.close()

    def _hand_over(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            # The interpreter must not wait for a disk that does not answer.
            self._thread = threading.Thread(target=self._work, name="metrics", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _work(self) -> None:
        while not self._closed:
            call = self._calls.get()
            try:
                with _WRITING:
                    call()
            except (
                BaseException
            ):  # the exit that a library asks for must not leave training waiting for its writer
                LOGGER.exception("writing metrics was broken off")
            finally:
                self._calls.task_done()
