"""Which optimizer runs inside Megatron-Core's distributed optimizer: the one place that knows their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import megatron.core.optimizer as core_optimizer
import torch
from megatron.core.optimizer import distrib_optimizer

from megatron_salamandra.config import ConfigError, OptimizerSection, RunConfig
from megatron_salamandra.foundation.import_paths import ImportPathError, check_options, find_object
from megatron_salamandra.optim.adamw import GroupStepAdamW
from megatron_salamandra.optim.sharded import ShardedOptimizer
from megatron_salamandra.platform import Platform

ADAMW = "adamw"

_SHARED = ("beta1", "beta2", "eps")
"""Keys of the section that an optimizer gets if its ``__init__`` names them."""
_FUSED = None if core_optimizer.USING_PYTORCH_OPTIMIZER else core_optimizer.Adam
"""The fused Adam of Transformer Engine or Apex, where one is installed."""


def choose_optimizer(config: RunConfig, platform: Platform) -> None:
    """Make Megatron-Core build the optimizer that ``optimizer.name`` asks for, with checkpoints that are right.

    AdamW on CUDA is the fused one of Transformer Engine or Apex where installed. Everywhere else
    :class:`GroupStepAdamW` takes its place, and the distributed optimizer is told that the step is found in the
    parameter group.

    Raises:
        ConfigError: there is no such optimizer, or it does not take the options.
    """
    if config.optimizer.name == ADAMW:
        if platform.name == "cuda" and _FUSED is not None:
            _install(_FUSED, _FUSED)
        else:
            _install(GroupStepAdamW, GroupStepAdamW)
            distrib_optimizer.USING_APEX_OPTIMIZER = True
        return
    chosen = _class_of(config)

    def make(params: Any, lr: float, weight_decay: float, **of_adam: Any) -> torch.optim.Optimizer:
        return chosen(params, lr=lr, weight_decay=weight_decay, **_named_by(chosen, config.optimizer))

    _install(make, chosen)
    distrib_optimizer.USING_APEX_OPTIMIZER = True


def check_optimizer(config: RunConfig) -> None:
    """Find the class that ``optimizer.name`` names and compare its options, before anything is built.

    Raises:
        ConfigError: see :func:`choose_optimizer`.
    """
    if config.optimizer.name != ADAMW:
        _class_of(config)


def set_hyperparameters(group: dict[str, Any], section: OptimizerSection) -> None:
    """Give a parameter group what the configuration says, but for learning rate and weight decay."""
    if section.name == ADAMW:
        group.update(betas=(section.beta1, section.beta2), eps=section.eps)
    else:
        group.update({name: getattr(section, name) for name in _SHARED if name in group} | section.options)


def _named_by(optimizer_class: type, section: OptimizerSection) -> dict[str, Any]:
    named = inspect.signature(optimizer_class).parameters
    return {name: getattr(section, name) for name in _SHARED if name in named} | section.options


def _install(make: Callable[..., torch.optim.Optimizer], optimizer_class: type) -> None:
    core_optimizer.Adam = make
    core_optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.Adam = optimizer_class
    distrib_optimizer.HAVE_APEX_OR_TE = True


def _class_of(config: RunConfig) -> type[ShardedOptimizer]:
    section = config.optimizer
    try:
        found: Any = find_object(section.name)
        if not (inspect.isclass(found) and issubclass(found, ShardedOptimizer)):
            raise ImportPathError("this is no subclass of megatron_salamandra.optim.ShardedOptimizer")
        check_options(found, {"lr": 0.0, "weight_decay": 0.0} | _named_by(found, section), given=1)
    except ImportPathError as error:
        origin = config.origin_of("optimizer.name") or "configuration"
        raise ConfigError(f"{origin}: optimizer.name = {section.name}: {error}") from error
    return found
