"""Progress for people: a line every few steps, and a table after validation."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import LanguageScore, StepReport
from salamandra_data.text_table import text_table


class Console(Callback):
    """Step, loss, gradient norm, learning rate, rate and time left."""

    def start(self) -> None:
        trainer = self.trainer
        self._first_step = trainer.step
        self._started: float | None = None
        total = trainer.config.total_steps
        trainer.runtime.logger.info(
            "steps %d to %d, %s tokens each, %d sources",
            trainer.step + 1,
            total,
            f"{trainer.timeline.step_tokens(total):,}",
            len(trainer.stream.sources),
        )
        limit = trainer.config.data.max_epochs_warning
        for entry in trainer.ledger(total):
            if entry.epochs > limit:
                trainer.runtime.logger.warning(
                    "%s will be seen %.1f times by step %d (data.max_epochs_warning = %g)",
                    entry.source,
                    entry.epochs,
                    total,
                    limit,
                )

    def after_step(self, report: StepReport) -> None:
        if self._started is None:
            self._started = time.perf_counter() - report.seconds["step"]
        total = self.trainer.config.total_steps
        every = self.trainer.config.logging.console_every_steps
        if report.step % every and report.step != total and report.step != self._first_step + 1:
            return
        done = report.step - self._first_step
        # Everything counts towards the time left: data, validation and checkpoints, too.
        left = (time.perf_counter() - self._started) / done * (total - report.step)
        self.trainer.runtime.logger.info(
            "step %d/%d  loss %.4f  grad %.3f  lr %.2e  %s tokens/s  %.2f s/step  left %s",
            report.step,
            total,
            report.loss,
            report.grad_norm,
            report.lr,
            f"{report.tokens_per_second:,.0f}",
            report.seconds["step"],
            datetime.timedelta(seconds=round(left)),
        )

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        rows = [
            [s.language, f"{s.tokens:,}", f"{s.loss:.4f}", f"{s.perplexity:.2f}", f"{s.bits_per_byte:.4f}"]
            for s in scores
        ]
        table = text_table(["language", "tokens", "loss", "perplexity", "bits/byte"], rows)
        self.trainer.runtime.logger.info("validation at step %d\n%s", step, table)
