"""Time and memory of the training step of one variant, in a process of its own.

Started by training_step.py: ``training_measurement.py VARIANT CONFIG [key=value ...] --steps N --warmup N``.
The last line of its output is one row as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import zlib
from typing import Any

import torch
from result_file import environment
from training_variants import VARIANTS, apply

GIB = 1 << 30


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Median step: forward, backward and AdamW over one global batch of random tokens."""
    from megatron.core.distributed import finalize_model_grads

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build
    from megatron_salamandra.optim import build_optimizer
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.planning import training_flops_per_token
    from megatron_salamandra.platform import select_platform
    from megatron_salamandra.training.device_feed import on_device
    from megatron_salamandra.training.forward_backward import run_micro_batches

    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", str(20_000 + os.getpid() % 20_000))
    variant = VARIANTS[options.variant]
    batch = ["training.tokens=null", "training.steps=1000000", "optimizer.warmup_steps=10"]
    config = load_run_config(options.config, [*batch, *options.overrides, *variant.overrides])
    config.validate_packages()
    platform = select_platform(config.platform)
    platform.start(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    with start_process_grid(config.parallel, config.training.seed, platform) as grid:
        apply(variant)
        build.initialize_parameters = _random_weights
        chunks = build.build_model_chunks(config, grid, platform)
        optimizer = build_optimizer(config, chunks, platform)
        for chunk in chunks:
            chunk.config.finalize_model_grads_func = finalize_model_grads
            if config.optimizer.overlap_grad_reduce:
                chunk.config.no_sync_func = chunk.no_sync
        batches = on_device(_batches(config), platform)
        losses, seconds, cpu_seconds = [], [], []
        for _ in range(options.warmup + options.steps):
            platform.synchronize()
            began, cpu_began = time.perf_counter(), time.process_time()
            for chunk in chunks:
                chunk.zero_grad_buffer()
            optimizer.zero_grad()
            losses.append(run_micro_batches(chunks, batches, config, grid))
            optimizer.step()
            platform.synchronize()
            seconds.append(time.perf_counter() - began)
            cpu_seconds.append(time.process_time() - cpu_began)
        median = statistics.median(seconds[options.warmup :])
        rate = config.tokens_per_step / median
        peak = platform.peak_flops(config.precision)
        return {
            # Other work on the machine stretches the wall clock of a CPU run, and hardly the CPU time.
            "clock": "seconds" if platform.name == "cuda" else "cpu_seconds",
            "seconds": round(median, 4),
            "cpu_seconds": round(statistics.median(cpu_seconds[options.warmup :]), 4),
            "tokens_per_second": round(rate, 1),
            "mfu": round(
                rate * training_flops_per_token(config.model, config.data.sequence_length).total / peak, 4
            )
            if peak
            else None,
            "peak_gib": round(platform.peak_memory_bytes() / GIB, 3),
            "loss": float(losses[-1].nats / losses[-1].tokens),
            "environment": environment(platform.device),
        }


@torch.no_grad()
def _random_weights(chunk: Any, *, init_std: float, **_: Any) -> None:
    """Drawn on the device: the project's own rule, equal for every layout, takes a minute on the host.

    Equal for all variants, which have the same names of parameters.
    """
    chunk.to(torch.cuda.current_device())
    for name, parameter in chunk.named_parameters():
        torch.manual_seed(zlib.crc32(name.encode()))
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=init_std)


def _batches(config: Any) -> list[Any]:
    import numpy as np

    from megatron_salamandra.data.micro_batch import micro_batch

    training, model = config.training, config.model
    random = np.random.default_rng(0)
    shape = (training.micro_batch_size, config.data.sequence_length + 1)
    count = training.global_batch_size // training.micro_batch_size
    return [micro_batch(random.integers(0, model.vocab_size, shape)) for _ in range(count)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--threads", type=int)
    options = parser.parse_intermixed_args(argv)
    try:
        row = measure(options)
    except Exception as error:  # out of memory, most likely
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), flush=True)
        # Not the usual way out: after a failure NCCL may wait there for ever.
        os._exit(1)
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
