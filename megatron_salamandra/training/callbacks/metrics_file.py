"""``metrics.jsonl`` and ``validation.jsonl``: every number of the run, one JSON object per line."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_salamandra.planning import training_flops_per_token
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import LanguageScore, StepReport
from salamandra_data.atomic_write import atomic_write_bytes

if TYPE_CHECKING:
    from megatron_salamandra.training.trainer import Trainer


LOGGER = logging.getLogger("salamandra")


def drop_later_steps(path: Path, step: int) -> int:
    """Remove lines of steps after ``step`` from a JSONL file and return how many there were.

    A run that died after its last checkpoint repeats steps; their first reports must go. A last
    line that was cut short by the death goes as well.
    """
    if not path.exists():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    if len(kept) < len(lines):
        atomic_write_bytes(path, b"".join(kept))
    return len(lines) - len(kept)


class MetricsFile(Callback):
    """Writes one object per step, and one per language and validation."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.path = trainer.runtime.run_dir / "metrics.jsonl"
        self.validation_path = trainer.runtime.run_dir / "validation.jsonl"
        self._flops_per_token = training_flops_per_token(trainer.config.model).total
        self._peak = trainer.runtime.platform.peak_flops(trainer.config.precision)
        self._every = trainer.config.logging.console_every_steps

    def start(self) -> None:
        if self.is_writer:
            # A run that starts from nothing has no steps yet, not even a step 0.
            last = self.trainer.step or -1
            drop_later_steps(self.path, last)
            drop_later_steps(self.validation_path, last)

    def after_step(self, report: StepReport) -> None:
        if self.is_writer:
            self._append(self.path, self.describe(report))

    def after_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        if self.is_writer:
            for score in scores:
                self._append(self.validation_path, {"step": step, **asdict(score)})

    def describe(self, report: StepReport) -> dict[str, Any]:
        """The object of one step; the ledger of languages comes with every console line."""
        world = self.trainer.runtime.grid.world_size
        flops = report.tokens_per_second * self._flops_per_token / world
        entry: dict[str, Any] = {
            "step": report.step,
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
            entry["languages"] = {
                item.language: {"tokens": item.tokens, "epochs": round(item.epochs, 6)}
                for item in self.trainer.stream.ledger(self.trainer.consumed_samples)
            }
        return entry

    @staticmethod
    def _append(path: Path, entry: dict[str, Any]) -> None:
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            LOGGER.warning("%s: step %s is not written: %s", path, entry["step"], error.strerror)
