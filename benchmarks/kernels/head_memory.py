"""Peak memory and time of output layer + loss + their gradients on the CPU, ours beside the others.

As in training under Megatron-Core's DDP: the weight has a fp32 ``main_grad``, and its gradient ends there.
Each implementation runs in a process of its own, so the peak is the operating system's count of resident memory.
Run: ``python benchmarks/kernels/head_memory.py --json FILE`` (about 10 GiB of memory at the default size, and
minutes per implementation on two cores).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PEERS = ("torch", "megatron-core", "megatron-core-fused", "ours-in-place", "ours-chunked")
STOCK = "megatron-core"
GIB = 1 << 30


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def start_megatron_core() -> None:
    """One gloo rank: Megatron-Core's losses want a tensor-parallel group."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    rendezvous = Path(tempfile.mkdtemp()) / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    parallel_state.initialize_model_parallel()


def loss_function(name: str, chunk_tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``(hidden [S, B, H], weight [V, H], labels [S, B]) -> loss [S, B]``."""
    if name == "torch":
        return lambda hidden, weight, labels: F.cross_entropy(
            F.linear(hidden, weight).flatten(0, 1).float(), labels.flatten(), reduction="none"
        )
    if name.startswith("megatron-core"):
        start_megatron_core()
        from megatron.core import parallel_state
        from megatron.core.fusions.fused_cross_entropy import fused_vocab_parallel_cross_entropy
        from megatron.core.tensor_parallel import vocab_parallel_cross_entropy as stock

        if name == "megatron-core":
            return lambda hidden, weight, labels: stock(F.linear(hidden, weight), labels)
        group = parallel_state.get_tensor_model_parallel_group()
        return lambda hidden, weight, labels: fused_vocab_parallel_cross_entropy(
            F.linear(hidden, weight), labels, group
        )
    from salamandra_kernels import chunked_linear_cross_entropy, vocab_parallel_cross_entropy

    if name == "ours-in-place":
        return lambda hidden, weight, labels: vocab_parallel_cross_entropy(F.linear(hidden, weight), labels)
    return lambda hidden, weight, labels: chunked_linear_cross_entropy(
        hidden, weight, labels, chunk_tokens=chunk_tokens
    )


def run_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measured in this process: one pass, after everything is imported and compiled at a small size."""
    dtype = getattr(torch, options.dtype)
    loss_of = loss_function(name, options.chunk_tokens)
    small = torch.zeros(2, 1, 8, dtype=dtype, requires_grad=True)
    loss_of(
        small, torch.zeros(16, 8, dtype=dtype, requires_grad=True), torch.zeros(2, 1).long()
    ).sum().backward()
    before = peak_bytes()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(options.tokens, 1, options.hidden, generator=generator).to(dtype).requires_grad_()
    weight = torch.empty(options.vocabulary, options.hidden, dtype=dtype).normal_(
        std=0.02, generator=generator
    )
    weight = torch.nn.Parameter(weight)
    weight.main_grad = torch.empty(weight.shape).fill_(0.0)  # written, so that it is resident
    weight.grad_added_to_main_grad = False
    labels = torch.randint(options.vocabulary, (options.tokens, 1), generator=generator)
    start, cpu_start = time.perf_counter(), time.process_time()
    loss = loss_of(hidden, weight, labels).sum()
    loss.backward()
    if not weight.grad_added_to_main_grad:
        weight.main_grad.add_(weight.grad)
    weight.grad = None
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "name": name,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_gib": round((peak_bytes() - before) / GIB, 3),
        "loss": loss.item() / options.tokens,
        "grad_hidden": torch.linalg.vector_norm(hidden.grad, dtype=torch.float64).item(),
        "grad_weight": torch.linalg.vector_norm(weight.main_grad, dtype=torch.float64).item(),
    }


def environment() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocabulary", type=int, default=256_000)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--chunk-tokens", type=int, default=256)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", choices=PEERS, action="append", help="default: all")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(run_one(options.measure, options)))
        return 0
    sizes = {
        name: getattr(options, name) for name in ("vocabulary", "hidden", "tokens", "chunk_tokens", "dtype")
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    rows = []
    for name in options.only or PEERS:
        command = [sys.executable, __file__, *arguments, "--measure", name]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(result.stdout.splitlines()[-1]))
        row = rows[-1]
        times = f"{row['seconds']:>8.1f} s ({row['cpu_seconds']:.1f} s of CPU)"
        print(
            f"{row['name']:<20} {times}  peak {row['peak_gib']:>6.2f} GiB  loss {row['loss']:.6f}", flush=True
        )
    stock = next((row for row in rows if row["name"] == STOCK), None)
    if stock:
        for row in rows:
            row["peak_share_of_stock"] = round(row["peak_gib"] / stock["peak_gib"], 3)
            # CPU time: wall time would count what else the machine does.
            row["time_share_of_stock"] = round(row["cpu_seconds"] / stock["cpu_seconds"], 3)
            shares = f"peak {row['peak_share_of_stock']:.2f}, CPU time {row['time_share_of_stock']:.2f}"
            print(f"{row['name']:<20} of the stock path: {shares}")
    if options.json:
        report = {"environment": environment(), "sizes": sizes, "results": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
