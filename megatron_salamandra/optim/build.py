"""Megatron-Core's distributed optimizer over the optimizer that the configuration asks for."""

from __future__ import annotations

import math

import megatron.core.optimizer as core_optimizer
import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig

from megatron_salamandra.config import RunConfig, learning_rate_of
from megatron_salamandra.optim.choice import choose_optimizer, set_hyperparameters
from megatron_salamandra.platform import Platform


def build_optimizer(
    config: RunConfig, chunks: list[DistributedDataParallel], platform: Platform
) -> MegatronOptimizer:
    """The optimizer with fp32 master weights and moments, sharded over data parallelism (ZeRO-1).

    Weight decay spares vectors (norm gains), as in the published runs. Gradients are clipped to
    ``training.grad_clip`` by their global norm.

    Raises:
        ConfigError: ``optimizer.name`` is no optimizer, or one that does not take ``optimizer.options``.
    """
    choose_optimizer(config, platform)
    options = config.optimizer
    return core_optimizer.get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=options.lr,
            min_lr=options.min_lr,
            weight_decay=options.weight_decay,
            adam_beta1=options.beta1,
            adam_beta2=options.beta2,
            adam_eps=options.eps,
            # The norm is measured in any case; an infinite limit clips nothing.
            clip_grad=config.training.grad_clip or math.inf,
            bf16=config.precision == "bf16",
            params_dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
            use_distributed_optimizer=True,
            overlap_param_gather=options.overlap_param_gather,
        ),
        chunks,
        use_gloo_process_groups=False,
    )


def apply_schedule(optimizer: MegatronOptimizer, config: RunConfig, step: int) -> float:
    """Set the hyperparameters of every parameter group for update ``step``; returns the learning rate.

    All of them, because loading a checkpoint brings its own along.
    """
    rate = learning_rate_of(config, step)
    for group in optimizer.param_groups:
        set_hyperparameters(group, config.optimizer)
        group["lr"] = rate
        group["weight_decay"] = config.optimizer.weight_decay * group.get("wd_mult", 1.0)
    return rate
