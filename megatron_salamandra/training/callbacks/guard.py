"""Watches loss and gradient norm of every step, and keeps what would spoil the weights out of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from megatron_salamandra.config import GuardSection
from megatron_salamandra.data import RunRecord
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.run_directory import Incident, incident_number, write_incident
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.decision import Decision
from megatron_salamandra.training.report import Measurement, StepReport
from megatron_salamandra.training.usual_values import UsualValues


class Guard(Callback):
    """Skips or rolls back steps that are not finite or far from usual, within a budget, and records each.

    Its answers follow from what is measured and from its own state, so they are equal on all ranks.
    """

    part = "guard"
    decides_alike = True

    def __init__(self, settings: GuardSection) -> None:
        self._settings = settings
        self._losses = UsualValues(settings.window)
        self._log_norms = UsualValues(settings.window)
        self._acted: list[int] = []
        self._saved = False

    def start(self) -> None:
        """A run that resumed has a checkpoint to go back to."""
        self._saved = self.run.step > 0

    def after_checkpoint(self, step: int, directory: Path) -> None:
        """Now there is one."""
        self._saved = True

    def before_update(self, measured: Measurement) -> Decision:
        """Apply what is usual; see :class:`GuardSection` for the rest."""
        kind, reason = self._judge(measured)
        if kind is None:
            return self._apply_as_usual(measured)
        wanted = self._settings.on_spike if kind == "spike" else self._settings.on_nonfinite
        if wanted == "roll_back" and not self._saved:
            wanted, reason = "skip", f"{reason}; there is no checkpoint to go back to yet"
        if wanted in ("skip", "roll_back") and not self.has_budget(measured.step):
            wanted = "fail" if kind != "spike" else "none"
            reason += f"; {self.budget_is_spent()}"
        self.record(measured, kind, wanted, reason)
        if wanted == "none":
            return self._apply_as_usual(measured)  # what comes again and again becomes usual
        if wanted == "fail":
            return Decision.apply()  # which ends the run, because nothing but a finite update may be applied
        self.spend(measured.step)
        if wanted == "roll_back":
            return Decision.roll_back(reason, past_this_step=True)
        return Decision.skip(reason)

    def state(self) -> Mapping[str, Any]:
        """What is usual, and the steps that were kept out."""
        return {"losses": self._losses.values, "log_norms": self._log_norms.values, "acted": self._acted}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`, also with another window."""
        self._losses = UsualValues(self._settings.window, state["losses"])
        self._log_norms = UsualValues(self._settings.window, state["log_norms"])
        self._acted = [int(step) for step in state["acted"]]

    def _apply_as_usual(self, measured: Measurement) -> Decision:
        self._losses.add(measured.loss)
        self._log_norms.add(_log(measured.grad_norm))
        return Decision.apply()

    def _judge(self, measured: Measurement) -> tuple[str | None, str]:
        if measured.not_finite is not None:
            name, value = measured.not_finite
            return "not finite", f"the {name} is {value}"
        limit = self._settings.spike_threshold
        if limit is None:
            return None, ""
        far = self._losses.deviations_above(measured.loss)
        if far > limit:
            usual = median(self._losses.values)
            return (
                "spike",
                f"the loss is {measured.loss:.3f}, usually {usual:.3f}: {far:.0f} deviations above",
            )
        far = self._log_norms.deviations_above(_log(measured.grad_norm))
        if far > limit:
            usual = math.exp(median(self._log_norms.values))
            return (
                "spike",
                f"the gradient norm is {measured.grad_norm:.3f}, usually {usual:.3f}: {far:.0f} deviations above",
            )
        return None, ""

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to go back to."""
        return self._saved

    def has_budget(self, step: int) -> bool:
        """Whether one more step may be kept out, or mended, in the window of this one."""
        self._acted = [other for other in self._acted if abs(step - other) < self._settings.window]
        return len(self._acted) < self._settings.budget

    def spend(self, step: int) -> None:
        """One step of the budget."""
        self._acted.append(step)

    def budget_is_spent(self) -> str:
        """Why no more is done, in words."""
        return (
            f"{self._settings.budget} steps of the last {self._settings.window} were kept out or mended already "
            "(guard.budget)"
        )

    def record(
        self,
        measured: Measurement | StepReport,
        kind: str,
        action: str,
        reason: str,
        *,
        contents: bool = True,
    ) -> None:
        """Write the incident and its event; what cannot be written must not end a run.

        Args:
            contents: list the documents of the step, which may be the cause.
        """
        run = self.run
        run.logger.warning("step %d: %s (%s)", measured.step, reason, action)
        if not run.is_writer:
            return
        samples = run.timeline.step_samples(measured.step)
        directory = run.directory.incidents
        try:
            incident = Incident(
                number=incident_number(directory, measured.step, (samples[0], samples[-1])),
                step=measured.step,
                kind=kind,
                action=action,
                reason=reason,
                loss=measured.loss,
                grad_norm=measured.grad_norm,
                samples=(samples[0], samples[-1]),
                contents=self._contents(measured.step) if contents else [],
            )
            path = write_incident(directory, incident)
            run.events.write(
                "incident",
                step=measured.step,
                number=incident.number,
                incident=kind,
                action=action,
                reason=reason,
                file=path.name,
            )
        except (OSError, UserError) as error:  # what cannot be written must not end a run
            run.logger.warning("the incident cannot be written: %s", error)

    def _contents(self, step: int) -> list[dict[str, Any]]:
        """Samples of the step with their documents; empty, with a warning, if the shards cannot be read now."""
        try:
            record = RunRecord(self.run.directory.path, timeline=self.run.timeline)
            return [record.contents(step, sample).to_dict(sample) for sample in record.step_samples(step)]
        except (UserError, OSError) as error:
            self.run.logger.warning("the documents of step %d cannot be listed: %s", step, error)
            return []


def _log(norm: float) -> float:
    """Gradient norms spread by factors; one of exactly 0 is the smallest there is."""
    return math.log(max(norm, 1e-30)) if math.isfinite(norm) else math.inf
