"""A callback that hangs in one of many ways, once in a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from megatron_salamandra.training import Callback, StepReport


class Hangs(Callback):
    """Hangs after a step on one rank, unless the run did before.

    Args:
        way: ``freeze`` (SIGSTOP), ``loop`` (Python that never ends), ``collective`` (one that the others do not join),
            ``lock`` (a lock that nobody gives back).
    """

    def __init__(self, way: str, step: int, rank: int) -> None:
        self._way, self._step, self._rank = way, step, rank

    def after_step(self, report: StepReport) -> None:
        done = self.run.directory.path / "hung-before"
        if report.step != self._step or self.run.rank != self._rank or done.exists():
            return
        done.touch()
        ways: dict[str, Callable[[], object]] = {
            "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
            "loop": endless_loop,
            "collective": lambda: dist.all_reduce(torch.zeros(7)),
            "lock": lambda: [lock.acquire() for lock in [threading.Lock()] for _ in range(2)],
        }
        ways[self._way]()


def endless_loop() -> None:
    """Never ends."""
    while True:
        time.sleep(0.01)
