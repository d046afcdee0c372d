"""The interface of callbacks. Never imports torch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_salamandra.config import ConfigError
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.training.decision import Action, Decision, strongest
from megatron_salamandra.training.report import LanguageScore, Measurement, StepReport
from megatron_salamandra.training.run_view import Run


class Callback:
    """Hooks around training.

    All are called on every rank, in the same order, so they may be collective where nothing else is said. In all of
    them ``self.run`` is the view of the run.
    """

    run: Run
    part: str = "callbacks"
    """Under which name its time between steps is reported (``seconds_between_steps``)."""

    decides_alike: bool = False
    """Whether :meth:`before_update` follows from what is measured and from :meth:`state` alone, so that ranks need not
    ask each other."""

    @property
    def name(self) -> str:
        """Under which its state is kept; one callback of a run may have it."""
        return type(self).__name__

    def start(self) -> None:
        """Before the first step of this process, after a checkpoint was loaded."""

    def before_decision(self, measured: Measurement) -> Decision:
        """When loss and gradients of a step are known, before anybody is asked what becomes of them.

        For whoever doubts the gradients themselves: other answers than to apply keep them from all other callbacks.

        Args:
            measured: equal on all ranks.
        Returns:
            the same on all ranks; to repeat, the step's gradients are computed again.
        """
        return Decision.apply()

    def before_update(self, measured: Measurement) -> Decision:
        """When loss and gradients of a step are known and nothing was updated.

        Of several answers the strongest counts, over callbacks and over ranks. An update that would spoil the
        weights (:attr:`Measurement.finite`) ends the run unless one has another answer for it.

        Args:
            measured: equal on all ranks.
        """
        return Decision.apply()

    def to_sum(self, step: int) -> Sequence[float]:
        """Numbers of this rank that are added up over all ranks together with the loss of ``step``, at no cost.

        The sums are in ``report.sums[self.name]`` of :meth:`after_step`. Called once the gradients of the step are
        computed, and again if they are computed again.

        Returns:
            as many on all ranks; none by default.
        """
        return ()

    def after_step(self, report: StepReport) -> None:
        """After every optimizer step, also one whose update was skipped."""

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """After validation at ``step``."""

    def before_save(self, step: int) -> None:
        """Before the state of ``step`` is saved: what is written of the steps up to it must be on disk afterwards.

        A run that is killed repeats the steps behind its last checkpoint, and none before.
        """

    def after_checkpoint(self, step: int, directory: Path) -> None:
        """After the checkpoint of ``step`` got its final name; with background saves that may be steps later."""

    def before_roll_back(self) -> None:
        """Before the newest complete checkpoint is looked for, which the run goes back to."""

    def after_roll_back(self, step: int) -> None:
        """When weights, moments and position are those of the checkpoint of ``step``.

        The callback's own state is not taken back, so that it may remember why.
        """

    def catch_up(self) -> None:
        """While something long goes on between two steps: complete what was done in the background meanwhile."""

    def finish(self) -> None:
        """After the last step of this process, also when it was stopped early."""

    def after_last_save(self) -> None:
        """After every callback has finished and the last checkpoint has its name: nothing can be lost any more."""

    def has_work_left(self) -> bool:
        """Whether a run whose steps are all done must be started again for what was broken off; equal on all ranks.

        Asked at a start that finds no step to do, before :meth:`start`, and at the end.
        """
        return False

    def on_error(self, error: Exception, *, together: bool) -> None:
        """Instead of :meth:`finish`, when an error ends the run. What it raises is logged and does not count.

        Args:
            together: True if all ranks found the error; only then may the callback be collective.
        """

    def close(self) -> None:
        """At the very end, also after an error; must not be collective."""

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint keeps of this callback: JSON, equal on all ranks; nothing if empty."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned when the checkpoint was saved; before :meth:`start`.

        Not called if the checkpoint has no state of this callback.
        """


def _part(callback: Callback) -> Part:
    """What a rank is in while a callback is called between steps."""
    return {"validation": Part.VALIDATION, "checkpoint": Part.SAVE}.get(callback.part, Part.CALLBACKS)


class CallbackList:
    """Calls every callback in order."""

    def __init__(
        self,
        callbacks: Sequence[Callback],
        run: Run,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Show every callback its run.

        Raises:
            ConfigError: two callbacks have the same name.
        """
        names = [callback.name for callback in callbacks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"two callbacks are named {', '.join(twice)}\n"
                "  give one of the classes another `name`: it keeps their states in the checkpoint apart"
            )
        self._callbacks = list(callbacks)
        self._run = run
        self._logger = run.logger
        self._clock = clock
        self._seconds: dict[str, float] = {}
        for callback in self._callbacks:
            callback.run = run

    @property
    def have_a_say(self) -> bool:
        """True if a callback's answer before an update may differ between ranks, so that they must agree."""
        return any(
            type(callback).before_update is not Callback.before_update and not callback.decides_alike
            for callback in self._callbacks
        )

    def take_seconds(self) -> dict[str, float]:
        """Time spent in callbacks after steps since the last call, by :attr:`Callback.part`."""
        taken, self._seconds = self._seconds, {}
        return taken

    def start(self) -> None:
        """See :meth:`Callback.start`."""
        for callback in self._callbacks:
            PROGRESS.enter(_part(callback), callback.name)
            callback.start()

    def before_decision(self, measured: Measurement) -> Decision:
        """The first answer that is not to apply; see :meth:`Callback.before_decision`."""
        for callback in self._callbacks:
            PROGRESS.enter(Part.DECIDE, callback.name)
            if (answer := callback.before_decision(measured)).action is not Action.APPLY:
                return answer
        return Decision.apply()

    def before_update(self, measured: Measurement) -> Decision:
        """The strongest answer; all callbacks are asked, because each may keep statistics."""
        answers = []
        for callback in self._callbacks:
            PROGRESS.enter(Part.DECIDE, callback.name)
            answers.append(callback.before_update(measured))
        return strongest(answers)

    def to_sum(self, step: int) -> dict[str, Sequence[float]]:
        """The numbers of all callbacks that have some, by name; see :meth:`Callback.to_sum`."""
        numbers = {callback.name: callback.to_sum(step) for callback in self._callbacks}
        return {name: values for name, values in numbers.items() if values}

    def after_step(self, report: StepReport) -> None:
        """See :meth:`Callback.after_step`; the rest is not called for a step that one of them has rolled back."""
        for callback in self._callbacks:
            if self._run.roll_back_is_wanted:
                return
            started = self._clock()
            PROGRESS.enter(_part(callback), callback.name)
            callback.after_step(report)
            spent = self._clock() - started
            self._seconds[callback.part] = self._seconds.get(callback.part, 0.0) + spent

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        """See :meth:`Callback.after_validation`."""
        for callback in self._callbacks:
            with PROGRESS.inside(_part(callback), callback.name):
                callback.after_validation(step, scores)

    def before_save(self, step: int) -> None:
        """See :meth:`Callback.before_save`."""
        for callback in self._callbacks:
            with PROGRESS.inside(_part(callback), callback.name):
                callback.before_save(step)

    def after_checkpoint(self, step: int, directory: Path) -> None:
        """See :meth:`Callback.after_checkpoint`."""
        for callback in self._callbacks:
            with PROGRESS.inside(_part(callback), callback.name):
                callback.after_checkpoint(step, directory)

    def before_roll_back(self) -> None:
        """See :meth:`Callback.before_roll_back`."""
        for callback in self._callbacks:
            PROGRESS.enter(_part(callback), callback.name)
            callback.before_roll_back()

    def after_roll_back(self, step: int) -> None:
        """See :meth:`Callback.after_roll_back`."""
        for callback in self._callbacks:
            PROGRESS.enter(_part(callback), callback.name, step=step)
            callback.after_roll_back(step)

    def catch_up(self) -> None:
        """See :meth:`Callback.catch_up`."""
        for callback in self._callbacks:
            with PROGRESS.inside(_part(callback), callback.name):
                callback.catch_up()

    def finish(self) -> None:
        """See :meth:`Callback.finish` and :meth:`Callback.after_last_save`."""
        for callback in self._callbacks:
            PROGRESS.enter(_part(callback), callback.name)
            callback.finish()
        for callback in self._callbacks:
            PROGRESS.enter(_part(callback), callback.name)
            callback.after_last_save()

    def have_work_left(self) -> bool:
        """See :meth:`Callback.has_work_left`."""
        return any(callback.has_work_left() for callback in self._callbacks)

    def on_error(self, error: Exception, *, together: bool) -> None:
        """See :meth:`Callback.on_error`; the first error stays the one that is told."""
        for callback in self._callbacks:
            try:
                callback.on_error(error, together=together)
            except Exception:
                self._logger.exception("%s failed in on_error", callback.name)

    def close(self) -> None:
        """See :meth:`Callback.close`."""
        for callback in self._callbacks:
            try:
                callback.close()
            except Exception:
                self._logger.exception("%s failed in close", callback.name)

    def state(self) -> dict[str, Any]:
        """The states of all callbacks that have one, by name.

        Raises:
            TypeError: a state is not JSON; names the callback.
        """
        states = {callback.name: dict(callback.state()) for callback in self._callbacks}
        for name, state in states.items():
            try:
                json.dumps(state)
            except (TypeError, ValueError) as error:
                raise TypeError(f"the state of callback {name} cannot be kept as JSON: {error}") from error
        return {name: state for name, state in states.items() if state}

    def load_state(self, states: Mapping[str, Any]) -> list[str]:
        """Give every callback its state, and return the names that no callback has."""
        by_name = {callback.name: callback for callback in self._callbacks}
        for name, callback in by_name.items():
            if name in states:
                callback.load_state(states[name])
        return sorted(set(states) - set(by_name))
