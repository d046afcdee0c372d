"""The optimizer, and its hyperparameters at each step.

Public names: :func:`build_optimizer`, :class:`GroupStepAdamW`,
:func:`apply_schedule`, :func:`ready_gradients`, :func:`apply_update`.
"""

from __future__ import annotations

from megatron_salamandra.optim.adamw import GroupStepAdamW
from megatron_salamandra.optim.build import apply_schedule, build_optimizer
from megatron_salamandra.optim.update import apply_update, ready_gradients

__all__ = [
    "GroupStepAdamW",
    "apply_schedule",
    "apply_update",
    "build_optimizer",
    "ready_gradients",
]
