"""Requests from outside, and the sign of life that others look for."""

from __future__ import annotations

import math
import threading

from megatron_salamandra.cluster import ControlFiles, limits_of
from megatron_salamandra.hangs import PROGRESS
from megatron_salamandra.training.callbacks.base import Callback

_LOOK_SECONDS = 0.5


class ControlRequests(Callback):
    """Follows ``control/stop`` and ``control/save`` in the run directory, and touches ``control/heartbeat``.

    Rank 0 looks; the ranks agree on what it finds in their next step, as on every request. A thread of its own talks to
    the file system, which may be slow, so that no step waits for it. It beats whenever the rank has come somewhere else
    meanwhile, and says how long it may stay there.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self.run.is_writer:
            self._thread = threading.Thread(target=self._look, name="control", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        files, limits = ControlFiles(self.run.directory.path), limits_of(self.run.config)
        beaten = None
        while not self._ended.wait(_LOOK_SECONDS):
            if PROGRESS.place is not beaten:
                beaten, limit = PROGRESS.place, PROGRESS.limit(limits)
                files.beat(math.inf if limit is None else limit)
            if (asked := files.asked("stop")) is not None:
                files.take_up("stop")
                self.run.request_stop(f"{asked.reason} ({asked.by})")
            if files.asked("save") is not None:
                files.take_up("save")
                self.run.request_save()
