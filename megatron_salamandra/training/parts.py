"""What a trainer is made with: parts that a program or a test may replace, or add."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megatron_salamandra.data import StepLoader
from megatron_salamandra.training.callbacks import Callback
from megatron_salamandra.training.forward_backward import ForwardBackward, run_micro_batches
from megatron_salamandra.training.metrics.sinks import Sink


@dataclass(frozen=True)
class TrainerParts:
    """What a program or a test may replace in a trainer, or add to it."""

    forward_backward: ForwardBackward = run_micro_batches
    open_loader: Callable[..., StepLoader] = StepLoader
    clock: Callable[[], float] = time.perf_counter
    callbacks: Sequence[Callback] = ()
    """Besides those of the configuration, and called after them."""
    sinks: Sequence[Sink] = ()
    """Besides those of the configuration."""
