"""One training step of a whole model on one device: our kernels beside stock Megatron-Core.

Every variant is the same model in a process of its own: forward, backward and AdamW over one global batch of
random tokens, through the project's own model and optimizer. Variants differ in ``kernels`` alone, and
``megatron-core`` is Megatron-Core's own unfused code with the fusions switched on that it offers without other
packages (SwiGLU through torch.compile, the fused cross-entropy). All of them use the same attention.

On a GPU: ``python benchmarks/kernels/training_step.py salamandra-2b --json benchmarks/kernels/results/NAME.json``.
On the CPU (``--threads 2``), give overrides that make the model small; only the ratios mean something there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from stopwatch import environment

REFERENCE = [f"kernels.{key}=reference" for key in ("rope", "swiglu", "loss", "weight_gradient")]
VARIANTS: dict[str, list[str]] = {
    "megatron-core-unfused": REFERENCE,
    "megatron-core": REFERENCE,
    "ours": [],
    "ours-chunked-head": ["kernels.loss_chunk_tokens=2048"],
    "ours-without-rope": ["kernels.rope=reference"],
    "ours-without-swiglu": ["kernels.swiglu=reference"],
    "ours-without-loss": ["kernels.loss=reference"],
    "ours-without-weight-gradient": ["kernels.weight_gradient=reference"],
    "transformer-engine": [f"kernels.{key}=transformer_engine" for key in ("rope", "swiglu", "loss")],
}
DEFAULT = ("megatron-core-unfused", "megatron-core", "ours", "ours-chunked-head")
GIB = 1 << 30


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Median step of one variant, measured in this process."""
    import os

    from megatron.core.distributed import finalize_model_grads

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build, transformer_config
    from megatron_salamandra.optim import build_optimizer
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.planning import training_flops_per_token
    from megatron_salamandra.platform import select_platform
    from megatron_salamandra.training.forward_backward import run_micro_batches

    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", str(20_000 + os.getpid() % 20_000))
    batch = ["training.tokens=null", "training.steps=1000000", "optimizer.warmup_steps=10"]
    config = load_run_config(options.config, [*batch, *options.overrides, *VARIANTS[name]])
    config.validate_packages()
    platform = select_platform(config.platform)
    platform.start(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    with start_process_grid(config.parallel, config.training.seed, platform) as grid:
        if name == "megatron-core":

            def with_fusions(*arguments: Any, **named: Any) -> Any:
                stock = transformer_config(*arguments, **named)
                return dataclasses.replace(
                    stock,
                    bias_activation_fusion=True,
                    cross_entropy_loss_fusion=True,
                    cross_entropy_fusion_impl="native",
                )

            build.transformer_config = with_fusions
        chunks = build.build_model_chunks(config, grid, platform)
        optimizer = build_optimizer(config, chunks, platform)
        for chunk in chunks:
            chunk.config.finalize_model_grads_func = finalize_model_grads
        batches = _batches(config)
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
            "name": name,
            "seconds": round(median, 4),
            "cpu_seconds": round(statistics.median(cpu_seconds[options.warmup :]), 4),
            "tokens_per_second": round(rate, 1),
            "mfu": round(rate * training_flops_per_token(config.model).total / peak, 4) if peak else None,
            "peak_gib": round(platform.peak_memory_bytes() / GIB, 3),
            "loss": losses[-1].nats / losses[-1].tokens,
        }


def _batches(config: Any) -> list[Any]:
    import numpy as np

    from megatron_salamandra.data.micro_batch import micro_batch

    training, model = config.training, config.model
    random = np.random.default_rng(0)
    shape = (training.micro_batch_size, model.sequence_length + 1)
    count = training.global_batch_size // training.micro_batch_size
    return [micro_batch(random.integers(0, model.vocab_size, shape)) for _ in range(count)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", help="YAML file or preset, such as salamandra-2b")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as training.global_batch_size=4"
    )
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(DEFAULT), metavar="VARIANT")
    parser.add_argument("--steps", type=int, default=10, help="measured steps (default: 10)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before (default: 3)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often the variants take turns (default: 1)"
    )
    parser.add_argument("--threads", type=int, help="threads on the CPU")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--measure", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(argv)
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return 0
    # One sample per step unless asked otherwise: the published batch belongs to 256 devices.
    arguments = [
        options.config,
        "training.global_batch_size=1",
        "training.micro_batch_size=1",
        *options.overrides,
    ]
    arguments += [f"--steps={options.steps}", f"--warmup={options.warmup}"]
    arguments += [f"--threads={options.threads}"] if options.threads else []
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
    for _ in range(options.rounds):
        for name in options.only:
            command = [sys.executable, __file__, *arguments, "--measure", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
    # Other work on the machine stretches the wall clock of a CPU run, and hardly the CPU time.
    clock = "seconds" if torch.cuda.is_available() else "cpu_seconds"
    results = [min(row, key=lambda each: each[clock]) for row in rows.values()]
    for row in results:
        row["time_share"] = round(row[clock] / results[0][clock], 3)
        row["peak_share"] = round(row["peak_gib"] / results[0]["peak_gib"], 3)
        print(
            "{name:<30} {seconds:>9.3f} s  {tokens_per_second:>9.0f} tokens/s  peak {peak_gib:>7.2f} GiB  "
            "time {time_share:.2f}  peak {peak_share:.2f}  loss {loss:.6f}".format(**row)
        )
    if options.json:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        report = {
            "environment": environment(device),
            "command": " ".join(["python", "benchmarks/kernels/training_step.py", *(argv or sys.argv[1:])]),
            "results": results,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
