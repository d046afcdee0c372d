"""Requests from outside, and the sign of life that others look for."""

from __future__ import annotations

import threading

from megatron_salamandra.cluster import ControlFiles
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import StepReport

_LOOK_SECONDS = 0.5


class ControlRequests(Callback):
    """Follows ``control/stop`` and ``control/save`` in the run directory, and touches ``control/heartbeat``.

    Rank 0 looks; the ranks agree on what it finds in their next step, as on every request. A thread of its own talks to
    the file system, which may be slow, so that no step waits for it.
    """

    def __init__(self) -> None:
        self._moved = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self.run.is_writer:
            self._moved.set()
            self._thread = threading.Thread(target=self._look, name="control", daemon=True)
            self._thread.start()

    def after_step(self, report: StepReport) -> None:
        self._moved.set()

    def catch_up(self) -> None:
        self._moved.set()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        files = ControlFiles(self.run.directory.path)
        while not self._ended.wait(_LOOK_SECONDS):
            if self._moved.is_set():
                self._moved.clear()
                files.beat()
            if (asked := files.asked("stop")) is not None:
                files.take_up("stop")
                self.run.request_stop(f"{asked.reason} ({asked.by})")
            if files.asked("save") is not None:
                files.take_up("save")
                self.run.request_save()
