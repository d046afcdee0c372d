"""What happens around steps: each concern in its own file, with its own state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_salamandra.training.callbacks.base import Callback, CallbackList
from megatron_salamandra.training.callbacks.checkpointing import Checkpointing
from megatron_salamandra.training.callbacks.console import Console
from megatron_salamandra.training.callbacks.metrics_file import MetricsFile
from megatron_salamandra.training.callbacks.tensorboard import TensorBoard
from megatron_salamandra.training.callbacks.validation import Validation

if TYPE_CHECKING:
    from megatron_salamandra.training.trainer import Trainer

__all__ = ["Callback", "CallbackList", "default_callbacks"]


def default_callbacks(trainer: Trainer) -> list[Callback]:
    """The callbacks of a run, in the order in which they are called."""
    callbacks: list[Callback] = [MetricsFile(trainer), Console(trainer)]
    if trainer.config.logging.tensorboard:
        callbacks.append(TensorBoard(trainer))
    # Checkpoints last: what the others wrote for this step is on disk before the step is saved.
    return [*callbacks, Validation(trainer), Checkpointing(trainer)]
