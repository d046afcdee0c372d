"""``metrics.jsonl`` and ``validation.jsonl``: every number of the run, one JSON object per line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from megatron_salamandra.data import by_language
from megatron_salamandra.planning import training_flops_per_token
from megatron_salamandra.run_directory import MetricsLog, ValidationLog, ValidationRecord
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import LanguageScore, StepReport

if TYPE_CHECKING:
    from megatron_salamandra.training.trainer import Trainer


class MetricsFile(Callback):
    """Writes one object per step, and one per language and validation."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self._metrics = MetricsLog(trainer.runtime.directory.metrics)
        self._validation = ValidationLog(trainer.runtime.directory.validation)
        self._flops_per_token = training_flops_per_token(
            trainer.config.model, trainer.config.data.sequence_length
        ).total
        self._peak = trainer.runtime.platform.peak_flops(trainer.config.precision)
        self._every = trainer.config.logging.console_every_steps

    def start(self) -> None:
        if self.is_writer:
            # A run that starts from nothing has no steps yet, not even a step 0.
            last = self.trainer.step or -1
            self._metrics.forget_after(last)
            self._validation.forget_after(last)

    def after_step(self, report: StepReport) -> None:
        if self.is_writer:
            self._metrics.append(report.step, self.describe(report))

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        if self.is_writer:
            for score in scores:
                self._validation.append(ValidationRecord(step=step, **asdict(score)))

    def describe(self, report: StepReport) -> dict[str, Any]:
        """What is written of one step; the ledger of languages comes with every console line."""
        world = self.trainer.runtime.grid.world_size
        flops = report.tokens_per_second * self._flops_per_token / world
        entry: dict[str, Any] = {
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "lr": report.lr,
            "tokens": report.tokens,
            "tokens_per_second": report.tokens_per_second,
            "tokens_per_second_per_rank": report.tokens_per_second / world,
            "model_flops_per_second_per_rank": flops,
            "mfu": flops / self._peak if self._peak else None,
            "seconds": {part: round(value, 6) for part, value in report.seconds.items()},
            "peak_memory_bytes": report.memory_bytes,
        }
        if report.step % self._every == 0 or report.step == self.trainer.config.total_steps:
            ledger = self.trainer.ledger(self.trainer.step)
            entry["languages"] = {
                item.language: {"tokens": item.tokens, "epochs": round(item.epochs, 6)}
                for item in by_language(ledger)
            }
            if any(item.source != item.language for item in ledger):
                entry["sources"] = {
                    item.source: {"tokens": item.tokens, "epochs": round(item.epochs, 6)} for item in ledger
                }
        return entry
