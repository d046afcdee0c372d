"""TensorBoard scalars, written whole or not at all."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.report import LanguageScore

TAGS = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "lr": "train/lr",
    "tokens": "train/tokens",
    "tokens_per_second": "speed/tokens_per_second",
    "tokens_per_second_per_rank": "speed/tokens_per_second_per_rank",
    "model_flops_per_second_per_rank": "speed/model_flops_per_second_per_rank",
    "mfu": "speed/mfu",
    "seconds/data": "speed/data_seconds",
    "peak_memory_bytes": "memory/peak_bytes",
}
"""Tags of metrics whose name is not their tag."""


class TensorBoard(Sink):
    """Every metric and every validation score as a curve over steps.

    TensorBoard's own writer hands records to a thread, which a full disk ends for good and which leaves a torn record
    behind. This one writes in place and takes back what was written of a record that did not fit.
    """

    name = "tensorboard/"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: _WholeWrites | None = None

    def open(self, step: int) -> None:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            file_name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
            self._file = _WholeWrites(self._directory / file_name)
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Readers drop the points from this step on: those that a run repeats after a crash or a roll-back.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        self._scalars(
            step,
            {
                TAGS.get(metric.name, metric.name): metric.value
                for metric in metrics
                if metric.value is not None
            },
        )

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        losses = {f"validation_loss/{score.language}": score.loss for score in scores}
        bits = {f"validation_bits_per_byte/{score.language}": score.bits_per_byte for score in scores}
        self._scalars(step, losses | bits)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _scalars(self, step: int, values: dict[str, int | float]) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        assert self._file is not None
        RecordWriter(self._file).write(event.SerializeToString())


class _WholeWrites:
    """A file that grows by whole writes: what a full disk cut short is taken back."""

    def __init__(self, path: Path) -> None:
        self._stream: BinaryIO = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        size = os.fstat(self._stream.fileno()).st_size
        try:
            left = memoryview(data)
            while left:
                left = left[self._stream.write(left) :]
        except OSError:
            os.ftruncate(self._stream.fileno(), size)
            raise

    def close(self) -> None:
        self._stream.close()
