"""Callbacks that tests name in configurations."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_salamandra.training import Callback, Decision, Measurement, StepReport
from megatron_salamandra.training.errors import TrainingError


class Answers(Callback):
    """Answers at given steps, once each in this process; remembers in the checkpoint how often it was asked.

    Args:
        answers: action by step, such as ``{3: skip}``.
        rank: the only rank that answers; all of them if None.
        pass_over_samples: of every roll-back.
        forget: answer again when the step comes again.
    """

    def __init__(
        self,
        answers: Mapping[int, str],
        rank: int | None = None,
        pass_over_samples: int = 0,
        forget: bool = False,
    ) -> None:
        self._answers = dict(answers)
        self._rank = rank
        self._pass_over_samples = pass_over_samples
        self._forget = forget
        self.asked = 0

    def before_update(self, measured: Measurement) -> Decision:
        self.asked += 1
        answer = self._answers.get(measured.step)
        if answer is None or self._rank not in (None, self.run.rank):
            return Decision.apply()
        if not self._forget:
            del self._answers[measured.step]
        if answer == "roll_back":
            return Decision.roll_back("as the test has it", pass_over_samples=self._pass_over_samples)
        return {"skip": Decision.skip, "stop": Decision.stop}[answer]("as the test has it")

    def after_step(self, report: StepReport) -> None:
        self.run.record("answers/asked", self.asked)

    def state(self) -> Mapping[str, Any]:
        return {"asked": self.asked}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.asked = state["asked"]


class Refuses(Callback):
    """Finds an error on some ranks, or has them killed.

    Args:
        in_step: after the first step, in which the other ranks go on; else before it.
        how: ``refuse`` is an error that a user can mend, ``fail`` one that only a developer can, and ``die`` none.
    """

    def __init__(self, ranks: Sequence[int], in_step: bool = False, how: str = "refuse") -> None:
        self._ranks, self._in_step, self._how = ranks, in_step, how

    def start(self) -> None:
        if not self._in_step:
            self._fail()

    def after_step(self, report: StepReport) -> None:
        if self._in_step:
            self._fail()

    def _fail(self) -> None:
        if self.run.rank not in self._ranks:
            return
        if self._how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._how == "fail":
            raise RuntimeError("a bug of ours")
        raise TrainingError("a shard is damaged\n  copy it again")


class SkipNotFinite(Callback):
    """Skips what would spoil the weights."""

    def before_update(self, measured: Measurement) -> Decision:
        return Decision.apply() if measured.finite else Decision.skip(f"loss {measured.loss}")


class Diary(Callback):
    """Writes down which hooks were called, a file for each rank."""

    def __init__(self, save_at: int = 0, stop_at: int = 0, fail_at: int = 0) -> None:
        self._save_at, self._stop_at, self._fail_at = save_at, stop_at, fail_at

    def _note(self, *words: object) -> None:
        with (self.run.directory.path / f"diary-{self.run.rank}.jsonl").open("a") as stream:
            stream.write(json.dumps([str(word) for word in words]) + "\n")

    def start(self) -> None:
        self._note("start", self.run.step)

    def after_step(self, report: StepReport) -> None:
        if report.step == self._fail_at:
            raise RuntimeError("as the test has it")
        # One rank is enough.
        if report.step == self._save_at and self.run.rank == 0:
            self.run.request_save()
        if report.step == self._stop_at and self.run.rank == 0:
            self.run.request_stop("enough for a test")

    def after_validation(self, step: int, scores: Sequence[Any]) -> None:
        self._note("validation", step, len(scores))

    def after_checkpoint(self, step: int, directory: Path) -> None:
        self._note("checkpoint", step, directory.name, (directory / "manifest.json").exists())

    def after_roll_back(self, step: int) -> None:
        self._note("roll_back", step)

    def finish(self) -> None:
        self._note("finish", self.run.step)

    def on_error(self, error: Exception, *, together: bool) -> None:
        self._note("error", type(error).__name__, together)

    def close(self) -> None:
        self._note("close")


class NotACallback:
    """Is none."""
