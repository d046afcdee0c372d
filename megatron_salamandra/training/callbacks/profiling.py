"""A trace of a few steps for whoever wants to see where the time goes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from megatron_salamandra.config import ProfileSection
from megatron_salamandra.run_directory import WriteGuard
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import StepReport

LOGGER = logging.getLogger("salamandra")
_ALLOCATIONS = 200_000
"""Remembered for a snapshot, the last ones: some steps of a deep model."""


class Profiling(Callback):
    """Runs torch's profiler over the steps of ``training.profile`` and leaves what it saw in ``run_dir/profile``.

    Chrome's format, gzipped: ui.perfetto.dev and chrome://tracing read it. The parts of a step are ranges with their
    names (``salamandra/data``, ``forward_backward``, ``reduce``, ``decide``, ``update``); beside them are all
    operations, and on CUDA all kernels.
    """

    part = "profile"

    def __init__(self, settings: ProfileSection) -> None:
        self._first, self._last = settings.steps
        self._memory = settings.memory
        self._began: int | None = None
        self._profile: profile | None = None

    def start(self) -> None:
        self._begin_if_due(self.run.step + 1)

    def after_step(self, report: StepReport) -> None:
        if self._profile is not None and report.step >= self._last:
            self._end(report.step)
        self._begin_if_due(report.step + 1)

    def after_roll_back(self, step: int) -> None:
        self._end(step)
        self._begin_if_due(step + 1)

    def close(self) -> None:
        self._end(self.run.step)

    def _begin_if_due(self, step: int) -> None:
        """Begin before ``step``, once: a run that resumes among the steps profiles those that are left."""
        if self._profile is not None or self._began is not None or not self._first <= step <= self._last:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
            if self._memory:
                torch.cuda.memory._record_memory_history(max_entries=_ALLOCATIONS)
        self._began = step
        self._profile = profile(activities=activities, profile_memory=self._memory)
        self._profile.start()

    def _end(self, step: int) -> None:
        """Stop, and write the steps from the first that was profiled to ``step``; a full disk is told."""
        ended, self._profile = self._profile, None
        if ended is None:
            return
        ended.stop()
        directory = self.run.directory.profile
        name = f"steps-{self._began:08d}-{step:08d}-rank-{self.run.rank:04d}"

        def write() -> None:
            directory.mkdir(parents=True, exist_ok=True)
            _whole(directory / f"{name}.trace.json.gz", ended.export_chrome_trace)
            if self._memory and torch.cuda.is_available():
                _whole(directory / f"{name}.memory.pickle", torch.cuda.memory._dump_snapshot)
                torch.cuda.memory._record_memory_history(enabled=None)
            self.run.logger.info("the profile of steps %d to %d is in %s", self._began, step, directory)

        WriteGuard(str(directory), LOGGER).attempt(write)


def _whole(path: Path, write: Callable[[str], object]) -> None:
    """Write a file that has its name only when it is complete."""
    unfinished = path.with_name(f".partial-{path.name}")
    write(str(unfinished))
    os.replace(unfinished, path)
