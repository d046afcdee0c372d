"""TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter

from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import LanguageScore, StepReport


class TensorBoard(Callback):
    """Loss, gradient norm, learning rate, throughput, and validation by language; x is the step."""

    _writer: SummaryWriter | None = None

    def start(self) -> None:
        if self.is_writer:
            # Steps repeated after a crash replace their first reports.
            self._writer = SummaryWriter(
                str(self.trainer.runtime.directory.tensorboard), purge_step=self.trainer.step + 1
            )

    def after_step(self, report: StepReport) -> None:
        if self._writer is None:
            return
        for name, value in (
            ("train/loss", report.loss),
            ("train/grad_norm", report.grad_norm),
            ("train/lr", report.lr),
            ("train/tokens", report.tokens),
            ("speed/tokens_per_second", report.tokens_per_second),
            ("speed/data_seconds", report.seconds["data"]),
        ):
            self._writer.add_scalar(name, value, report.step)

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        if self._writer is None:
            return
        for score in scores:
            self._writer.add_scalar(f"validation_loss/{score.language}", score.loss, step)
            self._writer.add_scalar(f"validation_bits_per_byte/{score.language}", score.bits_per_byte, step)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
