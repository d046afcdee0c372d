"""Bandwidth of every operation at the shapes of the published models, ours beside the others.

The measure is the share of a plain device-to-device copy, taken in the same run: bytes the operation must
move (see each file of salamandra_kernels) over its time, over the copy's bytes per second. Needs a GPU:
``python benchmarks/kernels/operations.py --json benchmarks/kernels/results/NAME.json``. ``--device cpu
--sequence 64`` runs the same code on the CPU, to try the script out; its numbers say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
import torch
from stopwatch import copy_bytes_per_second, environment, median_milliseconds, peak_extra_bytes
from torch import Tensor

# hidden size, ffn size, query groups, query heads per group
MODELS = {"2b": (2048, 5440, 16, 1), "7b": (4096, 11008, 8, 4), "40b": (8192, 24576, 8, 8)}
HEAD_DIM = 128
VOCABULARY = 256_000
BYTES = 2  # of a bf16 number


@dataclasses.dataclass(frozen=True)
class Task:
    """One operation at one shape; ``inputs`` makes fresh tensors, the first of which gets a gradient."""

    operation: str
    shape: str
    inputs: Callable[[], tuple[Tensor, ...]]
    implementations: dict[str, Callable[..., Any]]
    forward_bytes: int
    backward_bytes: int


def tasks(options: argparse.Namespace, device: torch.device) -> Iterator[Task]:
    sequence = options.sequence

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.bfloat16, device=device)

    for model in options.model or MODELS:
        hidden, ffn, groups, q_per_group = MODELS[model]
        for tp in options.tp or (1, 4):
            shape = f"{model} tp{tp}"
            local = groups // tp
            width = local * (q_per_group + 2) * HEAD_DIM
            rotated = sequence * local * (q_per_group + 1) * HEAD_DIM
            if "rope" in options.operation:
                yield Task(
                    "rope",
                    shape,
                    lambda local=local, width=width: (random(sequence, 1, local, width // local),),
                    peers.rope(local, q_per_group, HEAD_DIM, sequence, device),
                    2 * BYTES * rotated,
                    2 * BYTES * sequence * width,
                )
            if "swiglu" in options.operation:
                columns = ffn // tp
                yield Task(
                    "swiglu",
                    shape,
                    lambda columns=columns: (random(sequence, 2 * columns),),
                    peers.swiglu_entries(),
                    3 * BYTES * sequence * columns,
                    5 * BYTES * sequence * columns,
                )
        if "norm" in options.operation:
            weight = random(hidden).requires_grad_()
            yield Task(
                "norm",
                model,
                lambda hidden=hidden: (random(sequence, hidden),),
                peers.norm_entries(weight),
                2 * BYTES * sequence * hidden,
                3 * BYTES * sequence * hidden,
            )
    for tp in options.tp or (1, 4):
        vocabulary = VOCABULARY // tp
        if "loss" in options.operation:
            yield Task(
                "loss",
                f"256k tp{tp}",
                lambda vocabulary=vocabulary: (
                    random(sequence, 1, vocabulary),
                    torch.randint(vocabulary, (sequence, 1), device=device),
                ),
                peers.loss_entries(),
                BYTES * sequence * vocabulary,
                2 * BYTES * sequence * vocabulary,
            )


def measure(task: Task, name: str, device: torch.device, repeats: int, copy: float) -> dict[str, Any]:
    """Milliseconds forward and forward + backward, share of copy bandwidth, peak extra memory."""
    run = task.implementations[name]
    first, *others = task.inputs()
    sample = run(first.clone().requires_grad_(), *others)
    upstream = [torch.ones_like(out) for out in (sample if isinstance(sample, tuple) else (sample,))]
    del sample

    def forward() -> Any:
        # A fresh leaf on the same memory: some implementations overwrite their input.
        return run(first.detach().requires_grad_(), *others)

    def both() -> None:
        leaf = first.detach().requires_grad_()
        out = run(leaf, *others)
        torch.autograd.backward(out if isinstance(out, tuple) else (out,), upstream)

    forward_ms = median_milliseconds(forward, device, repeats)
    both_ms = median_milliseconds(both, device, repeats)
    moved = task.forward_bytes + task.backward_bytes
    return {
        "operation": task.operation,
        "shape": task.shape,
        "implementation": name,
        "forward_ms": round(forward_ms, 4),
        "forward_backward_ms": round(both_ms, 4),
        "forward_share_of_copy": round(task.forward_bytes / (forward_ms / 1000) / copy, 3),
        "share_of_copy": round(moved / (both_ms / 1000) / copy, 3),
        "peak_extra_bytes": peak_extra_bytes(both, device),
    }


def start_megatron_core(device: torch.device) -> None:
    """One rank of everything: Megatron-Core's losses want a tensor-parallel group."""
    if peers.optional_module("megatron-core", "megatron.core.parallel_state") is None:
        return
    import torch.distributed as dist
    from megatron.core import parallel_state

    backend = "nccl" if device.type == "cuda" else "gloo"
    rendezvous = f"file://{tempfile.mkdtemp()}/rendezvous"
    dist.init_process_group(backend, init_method=rendezvous, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()


def main(argv: list[str] | None = None) -> int:
    operations = ("rope", "swiglu", "norm", "loss")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sequence", type=int, default=8192, help="tokens (micro-batch of one sequence)")
    parser.add_argument("--operation", choices=operations, nargs="+", default=list(operations))
    parser.add_argument("--model", choices=tuple(MODELS), nargs="+", help="default: all")
    parser.add_argument("--tp", type=int, choices=(1, 2, 4, 8), nargs="+", help="default: 1 and 4")
    parser.add_argument("--only", nargs="+", help="only implementations of these names")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("operations: no CUDA device here; nothing is measured (--device cpu tries the script out)")
        return 2
    device = torch.device(options.device)
    if "loss" in options.operation:
        start_megatron_core(device)
    copy = copy_bytes_per_second(device, options.repeats)
    print(f"copy: {copy / 1e12:.3f} TB/s read + write")
    rows = []
    for task in tasks(options, device):
        for name in task.implementations:
            if options.only and name not in options.only:
                continue
            try:
                row = measure(task, name, device, options.repeats, copy)
            except Exception as error:  # one peer out of memory must not end the others
                row = {"operation": task.operation, "shape": task.shape, "implementation": name}
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            rows.append(row)
            print(json.dumps(row), flush=True)
    for peer, reason in peers.missing.items():
        print(f"{peer}: not measured, {reason}")
    if options.json:
        report = {"environment": environment(device), "copy_bytes_per_second": round(copy), "results": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report | {"missing": peers.missing}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
