"""The training loop, its state, and the callbacks that hang on it.

Public names: :class:`Runtime`, :class:`Trainer`, :class:`TrainerParts`.
"""

from __future__ import annotations

from megatron_salamandra.training.runtime import Runtime, StopRequested
from megatron_salamandra.training.trainer import Trainer, TrainerParts

__all__ = ["Runtime", "StopRequested", "Trainer", "TrainerParts"]
