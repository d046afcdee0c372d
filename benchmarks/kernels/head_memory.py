"""Peak memory and time of output layer + loss + their gradients on the CPU, ours beside the others.

As in training under Megatron-Core's DDP: the weight has a fp32 ``main_grad``, and its gradient ends there.
Each implementation runs in a process of its own, so the peak is the operating system's count of resident memory.
Run: ``python benchmarks/kernels/head_memory.py --json FILE`` (about 10 GiB of memory at the default size, and
minutes per implementation on two cores). ``ours-chunked`` has a row for each of ``--chunk-tokens``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from result_file import ResultFile
from timed_process import run_within
from torch import Tensor

STOCK, CHUNKED = "megatron-core", "ours-chunked"
PEERS = (STOCK, "ours-in-place", CHUNKED, "torch", "megatron-core-fused")
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
    loss_of = loss_function(name, options.chunk_tokens[0])
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


def add_shares(rows: list[dict[str, Any]]) -> None:
    """Memory and time of each row as shares of the stock path, if that was measured."""
    stock = next((row for row in rows if row["name"] == STOCK), None)
    if stock is None:
        return
    for row in rows:
        row["peak_share_of_stock"] = round(row["peak_gib"] / stock["peak_gib"], 3)
        # CPU time: wall time would count what else the machine does.
        row["time_share_of_stock"] = round(row["cpu_seconds"] / stock["cpu_seconds"], 3)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocabulary", type=int, default=256_000)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--chunk-tokens", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", choices=PEERS, nargs="+", default=list(PEERS))
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(run_one(options.measure, options)))
        return 0
    sizes = {name: getattr(options, name) for name in ("vocabulary", "hidden", "tokens", "dtype")}
    arguments = [f"--{name}={value}" for name, value in sizes.items()]
    file = ResultFile(options.json, environment=environment(), sizes=sizes)
    for name in options.only:
        for tokens in options.chunk_tokens if name == CHUNKED else [0]:
            row = {"name": f"{name}-{tokens}" if tokens else name}
            file.begin(row)
            command = [sys.executable, __file__, *arguments, "--measure", name, f"--chunk-tokens={tokens}"]
            done = run_within(command, None, capture=True)
            done.check_returncode()
            file.rows[-1] = row | json.loads(done.stdout.splitlines()[-1])
            add_shares(file.rows)
            file.write()
            print(json.dumps(file.rows[-1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
