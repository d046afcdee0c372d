"""Callbacks that send a rank a real signal at an exact moment, and write down what they find."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from processes import is_running

from megatron_salamandra.run_directory import complete_checkpoints, step_of
from megatron_salamandra.training import Callback, StepReport


class SignalIn(Callback):
    """Signals one rank in a validation, after its first language, or when a checkpoint has got its name.

    Args:
        step: of the validation or of the checkpoint.
        where: ``validation`` or ``checkpoint``.
        rank: which rank alone is signalled.
    """

    def __init__(self, step: int, where: str, rank: int = 0) -> None:
        self._step, self._where, self._rank = step, where, rank

    def catch_up(self) -> None:
        if self._where == "validation" and self.run.step == self._step:
            self._signal()

    def after_checkpoint(self, step: int, directory: Path) -> None:
        if self._where == "checkpoint" and step == self._step:
            self._signal()

    def _signal(self) -> None:
        saved = [step_of(path) for path in complete_checkpoints(self.run.directory.checkpoints)]
        self.run.events.write("signal-sent", step=self._step, saved=saved)
        if self.run.rank == self._rank:
            os.kill(os.getpid(), signal.SIGTERM)


class NotesSaves(Callback):
    """Writes down, between the languages of a validation, which steps are saved; first lets the writers end."""

    def catch_up(self) -> None:
        saved = [step_of(path) for path in complete_checkpoints(self.run.directory.checkpoints)]
        self.run.events.write("between-languages", step=self.run.step, saved=saved)
        while processes_of_saves():
            time.sleep(0.01)


def processes_of_saves() -> list[str]:
    """Processes that this one has forked and that have not ended."""
    found = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return [pid for pid in found if is_running(int(pid))]


class TakenOver(Callback):
    """Lets another run take the directory after ``step``, as if this one had been cut off for a while."""

    def __init__(self, step: int) -> None:
        self._step = step

    def after_step(self, report: StepReport) -> None:
        if report.step == self._step and self.run.is_writer:
            path = self.run.directory.owner
            path.write_text(json.dumps({**json.loads(path.read_text()), "token": "other", "host": "node9"}))
