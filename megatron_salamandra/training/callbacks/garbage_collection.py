"""Python's collector of cyclic garbage, at the same steps on all ranks."""

from __future__ import annotations

import gc

from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import StepReport

_YOUNG, _ALL = 1, 2
_FULL_EVERY = 20
"""Collections of the young generations between two of all objects, which walk through everything a rank holds."""


class GarbageCollection(Callback):
    """Collects every ``every`` steps, and not in between.

    Left to itself each rank collects when its own count of objects says so. The others then wait for it in their next
    collective, so that a job of many ranks pays for the collections of all of them, one after the other.
    """

    part = "garbage_collection"

    def __init__(self, every: int) -> None:
        self._every = every
        self._was_enabled = False

    def start(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()
        gc.collect(_ALL)

    def after_step(self, report: StepReport) -> None:
        if report.step % self._every == 0:
            gc.collect(_ALL if report.step % (self._every * _FULL_EVERY) == 0 else _YOUNG)

    def close(self) -> None:
        if self._was_enabled:
            gc.enable()
