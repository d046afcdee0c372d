"""The optimizer, and its hyperparameters at each step.

Public names: :func:`build_optimizer`, :func:`check_optimizer`, :class:`GroupStepAdamW`,
:class:`ShardedOptimizer`, :func:`apply_schedule`, :func:`ready_gradients`, :func:`norm_of`, :func:`apply_update`.
"""

from __future__ import annotations

from megatron_salamandra.optim.adamw import GroupStepAdamW
from megatron_salamandra.optim.build import apply_schedule, build_optimizer
from megatron_salamandra.optim.choice import check_optimizer
from megatron_salamandra.optim.masters import weights_unlike_masters
from megatron_salamandra.optim.sharded import ShardedOptimizer
from megatron_salamandra.optim.update import apply_update, norm_of, ready_gradients

__all__ = [
    "GroupStepAdamW",
    "ShardedOptimizer",
    "apply_schedule",
    "apply_update",
    "build_optimizer",
    "check_optimizer",
    "norm_of",
    "ready_gradients",
    "weights_unlike_masters",
]
