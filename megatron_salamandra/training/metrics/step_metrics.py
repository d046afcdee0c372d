"""What a step has to say in numbers, and the callback that hands them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from megatron_salamandra.data import by_language
from megatron_salamandra.planning import training_flops_per_token
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.metrics.book import MetricBook
from megatron_salamandra.training.metrics.sink_thread import SinkThread
from megatron_salamandra.training.report import LanguageScore, StepReport


class StepMetrics(Callback):
    """Records loss, norm, rate, throughput, memory and time by part, and now and then what each language has seen."""

    def __init__(self, peak_flops: float | None, between_steps: Callable[[], Mapping[str, float]]) -> None:
        """Take what the run's view does not have.

        Args:
            peak_flops: dense matrix peak of one device in FLOP/s; None where it is not known.
            between_steps: seconds by part that passed between the last step and this one.
        """
        self._peak = peak_flops
        self._between_steps = between_steps

    def after_step(self, report: StepReport) -> None:
        record, world = self.run.record, self.run.world_size
        window = self.run.timeline.sequence_length(report.step)
        flops_per_token = training_flops_per_token(self.run.config.model, window).total
        flops = report.tokens_per_second * flops_per_token / world
        record("loss", report.loss, "nats/token")
        record("grad_norm", report.grad_norm)
        record("lr", report.lr)
        record("tokens", report.tokens, "tokens")
        record("tokens_per_second", report.tokens_per_second, "tokens/s")
        record("tokens_per_second_per_rank", report.tokens_per_second / world, "tokens/s")
        record("model_flops_per_second_per_rank", flops, "FLOP/s")
        record("mfu", flops / self._peak if self._peak else None)
        for part, seconds in report.seconds.items():
            record(f"seconds/{part}", round(seconds, 6), "s")
        record("peak_memory_bytes", report.memory_bytes, "bytes")
        for part, seconds in self._between_steps().items():
            record(f"seconds_between_steps/{part}", round(seconds, 6), "s")
        if not report.applied:
            record("skipped", True)
        if self.run.skipped_updates:
            record("skipped_updates", self.run.skipped_updates, "steps")
        every = self.run.config.logging.console_every_steps
        if report.step % every == 0 or report.step == self.run.config.total_steps:
            self._record_ledger(report.step)

    def _record_ledger(self, step: int) -> None:
        ledger = self.run.ledger(step)
        for whole in by_language(ledger):
            self._record_seen(("languages", whole.language), whole.tokens, whole.epochs)
        if any(item.source != item.language for item in ledger):
            for item in ledger:
                self._record_seen(("sources", item.source), item.tokens, item.epochs)

    def _record_seen(self, name: tuple[str, str], tokens: int, epochs: float) -> None:
        self.run.record((*name, "tokens"), tokens, "tokens")
        self.run.record((*name, "epochs"), round(epochs, 6), "epochs")


class WriteMetrics(Callback):
    """Hands what was recorded of a step, and validation scores, to the sinks."""

    def __init__(self, book: MetricBook, sinks: SinkThread) -> None:
        self._book = book
        self._sinks = sinks

    def start(self) -> None:
        # A run that starts from nothing has no steps yet, not even a step 0.
        self._sinks.open(self.run.step or -1)

    def after_step(self, report: StepReport) -> None:
        self._sinks.write(report.step, self._book.take())
        if self.run.stop_reason is not None or report.step == self.run.config.total_steps:
            self._sinks.drain()  # what is told of the end comes after it

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        self._sinks.write_validation(step, scores)

    def before_save(self, step: int) -> None:
        self._sinks.drain()

    def after_roll_back(self, step: int) -> None:
        self._book.take()  # what was measured of the step that never was
        self._sinks.open(step)

    def close(self) -> None:
        self._sinks.close()
