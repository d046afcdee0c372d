"""Progress for people: a line every few steps, and a table after validation."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.report import LanguageScore
from megatron_salamandra.training.run_view import Run
from salamandra_data.text_table import text_table


class Console(Sink):
    """Step, loss, gradient norm, learning rate, rate and time left, in the run's log."""

    name = "the console"

    def __init__(self, run: Run) -> None:
        self._run = run
        self._told_start = False
        self._first_step = 0
        self._started: float | None = None

    def open(self, step: int) -> None:
        self._first_step = self._run.step
        self._started = None
        if not self._told_start:
            self._told_start = True
            self._tell_start()

    def _tell_start(self) -> None:
        run, total = self._run, self._run.config.total_steps
        run.logger.info(
            "steps %d to %d, %s tokens each, %d sources",
            run.step + 1,
            total,
            f"{run.timeline.step_tokens(total):,}",
            len(ledger := run.ledger(total)),
        )
        limit = run.config.data.max_epochs_warning
        for entry in ledger:
            if entry.epochs > limit:
                run.logger.warning(
                    "%s will be seen %.1f times by step %d (data.max_epochs_warning = %g)",
                    entry.source,
                    entry.epochs,
                    total,
                    limit,
                )

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        values = {metric.name: metric.value for metric in metrics if metric.value is not None}
        if self._started is None:
            self._started = time.perf_counter() - values["seconds/step"]
        total = self._run.config.total_steps
        every = self._run.config.logging.console_every_steps
        if step % every and step != total and step != self._first_step + 1:
            return
        # Everything counts towards the time left: data, validation and checkpoints, too.
        left = (time.perf_counter() - self._started) / (step - self._first_step) * (total - step)
        self._run.logger.info(
            "step %d/%d  loss %.4f  grad %.3f  lr %.2e  %s tokens/s  %.2f s/step  left %s",
            step,
            total,
            values["loss"],
            values["grad_norm"],
            values["lr"],
            f"{values['tokens_per_second']:,.0f}",
            values["seconds/step"],
            datetime.timedelta(seconds=round(left)),
        )

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        rows = [
            [s.language, f"{s.tokens:,}", f"{s.loss:.4f}", f"{s.perplexity:.2f}", f"{s.bits_per_byte:.4f}"]
            for s in scores
        ]
        table = text_table(["language", "tokens", "loss", "perplexity", "bits/byte"], rows)
        self._run.logger.info("validation at step %d\n%s", step, table)
