"""The interface of callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from megatron_salamandra.training.decision import Decision, strongest
from megatron_salamandra.training.report import LanguageScore, Measurement, StepReport

if TYPE_CHECKING:
    from megatron_salamandra.training.trainer import Trainer


class Callback:
    """Hooks around training. All are called on every rank, in the same order, so they may be collective."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @property
    def is_writer(self) -> bool:
        """True on the rank that writes the run's files."""
        return self.trainer.runtime.grid.rank == 0

    def start(self) -> None:
        """Before the first step of this process, after a checkpoint was loaded."""

    def before_update(self, measured: Measurement) -> Decision:
        """When the gradients of a step are ready and nothing was updated.

        Of several answers the strongest counts, over callbacks and over ranks.
        """
        return Decision.apply()

    def after_step(self, report: StepReport) -> None:
        """After every optimizer step, also one whose update was skipped."""

    def before_roll_back(self) -> None:
        """Before the newest complete checkpoint is looked for, which the run goes back to."""

    def after_roll_back(self, step: int) -> None:
        """When weights, moments and position are those of the checkpoint of ``step``."""

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """After validation at ``step``."""

    def finish(self) -> None:
        """After the last step of this process, also when it was stopped early."""

    def abandon(self) -> None:
        """Instead of :meth:`finish`, when all ranks found together that training cannot go on."""


class CallbackList:
    """Calls every callback in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)

    @property
    def have_a_say(self) -> bool:
        """True if a callback answers before updates; ranks need not agree on answers that nobody gives."""
        return any(type(callback).before_update is not Callback.before_update for callback in self._callbacks)

    def start(self) -> None:
        """See :meth:`Callback.start`."""
        for callback in self._callbacks:
            callback.start()

    def before_update(self, measured: Measurement) -> Decision:
        """The strongest answer; all callbacks are asked, because each may keep statistics."""
        return strongest([callback.before_update(measured) for callback in self._callbacks])

    def after_step(self, report: StepReport) -> None:
        """See :meth:`Callback.after_step`."""
        for callback in self._callbacks:
            callback.after_step(report)

    def before_roll_back(self) -> None:
        """See :meth:`Callback.before_roll_back`."""
        for callback in self._callbacks:
            callback.before_roll_back()

    def after_roll_back(self, step: int) -> None:
        """See :meth:`Callback.after_roll_back`."""
        for callback in self._callbacks:
            callback.after_roll_back(step)

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """See :meth:`Callback.after_validation`."""
        for callback in self._callbacks:
            callback.after_validation(step, scores)

    def finish(self) -> None:
        """See :meth:`Callback.finish`."""
        for callback in self._callbacks:
            callback.finish()

    def abandon(self) -> None:
        """See :meth:`Callback.abandon`."""
        for callback in self._callbacks:
            callback.abandon()
