"""Optimizer and learning-rate schedules.

Public names: :func:`build_optimizer`, :class:`GroupStepAdamW`, :func:`learning_rate`,
:func:`apply_schedule`.
"""

from __future__ import annotations

from megatron_salamandra.optim.adamw import GroupStepAdamW
from megatron_salamandra.optim.build import apply_schedule, build_optimizer
from megatron_salamandra.optim.schedule import learning_rate

__all__ = ["GroupStepAdamW", "apply_schedule", "build_optimizer", "learning_rate"]
