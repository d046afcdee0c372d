"""Speed and memory of every operation at the shapes of the published models, ours beside the others.

The measure is the share of a plain device-to-device copy, taken in the same run and timed in the same way: bytes
the operation must move (see each file of salamandra_kernels) over its time, over the copy's bytes per second.
For ``head``, output layer and loss together, it is time and peak memory. How time is taken: stopwatch.py.

Needs a GPU: ``python benchmarks/kernels/operations.py --json FILE`` (run_all.py does this and more). ``--device
cpu --sequence 64`` runs the same code on the CPU, to try it out; its numbers say nothing about a GPU. The file is
written before and after every row, and ``--resume`` goes on where a process died: a row that brings it down, or
takes longer than ``ROW_SECONDS``, costs that row. The exit status is 1 when an implementation of ours failed, 2 when
there is no device, 3 when the device no longer answers.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import peers
import torch
from measurement import Bench, measure
from result_file import ResultFile, environment
from shapes import MODELS, VOCABULARY
from stopwatch import Limits, copy_bytes_per_second
from tasks import OPERATIONS, Selection, Task, tasks
from torch import Tensor

# Compiling for the first time takes half of that.
ROW_SECONDS = 90


class DeviceLost(Exception):
    """The device no longer answers this process."""


def start_megatron_core(device: torch.device) -> None:
    """One rank of everything: Megatron-Core's losses want a tensor-parallel group."""
    if peers.optional_module("megatron-core", "megatron.core.parallel_state") is None:
        return
    import torch.distributed as dist
    from megatron.core import parallel_state

    backend = "nccl" if device.type == "cuda" else "gloo"
    rendezvous = f"file://{tempfile.mkdtemp()}/rendezvous"
    try:
        dist.init_process_group(backend, init_method=rendezvous, rank=0, world_size=1)
        parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    except Exception as error:  # its rows will fail; the others need no group
        print(f"megatron-core has no process group: {type(error).__name__}: {error}")


def results_of_eager(task: Task) -> list[Tensor] | None:
    """What every implementation is compared with; None where eager torch cannot run."""
    try:
        return Bench(task, task.implementations["eager"]).sample()
    except Exception as error:  # out of memory: its own row says so too
        print(f"{task.operation} {task.shape}: nothing is compared, eager torch failed: {error}"[:300])
        return None


def answers(device: torch.device) -> bool:
    """Whether the device still works; an illegal access of one kernel ends it for the whole process."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def measure_task(
    task: Task, only: list[str] | None, device: torch.device, limits: Limits, copy: float, file: ResultFile
) -> None:
    """One row for each implementation that has none yet; a failure is a row with an error.

    Raises:
        DeviceLost: nothing can be measured in this process any more.
    """
    done = {row["implementation"] for row in file.rows if of_task(row, task)}
    names = [name for name in task.implementations if name not in done and (not only or name in only)]
    reference = results_of_eager(task) if names else None
    for name in names:
        row: dict[str, Any] = {"operation": task.operation, "shape": task.shape, "implementation": name}
        file.begin(row)
        signal.alarm(ROW_SECONDS)  # ends the process, also one that waits for a hanging kernel
        try:
            row |= measure(task, name, device, limits, copy, reference)
        except Exception as error:  # one that is out of memory must not end the others
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        signal.alarm(0)
        file.finish(row)
        print(json.dumps(row), flush=True)
        if not answers(device):
            raise DeviceLost(name)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def of_task(row: dict[str, Any], task: Task) -> bool:
    """Whether a row belongs to a task."""
    return (row["operation"], row["shape"]) == (task.operation, task.shape)


def failures_of_ours(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of this project's own kernels that hold an error."""
    return [
        f"{row['operation']} {row['shape']} {row['implementation']}: {row['error']}"
        for row in rows
        if "error" in row and row["implementation"].startswith("ours")
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sequence", type=int, default=8192, help="tokens (micro-batch of one sequence)")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="classes of all ranks together")
    parser.add_argument("--operation", choices=OPERATIONS, nargs="+", default=list(OPERATIONS))
    parser.add_argument("--model", choices=tuple(MODELS), nargs="+", default=list(MODELS))
    parser.add_argument("--tp", type=int, choices=(1, 2, 4, 8), nargs="+", default=[1, 4])
    parser.add_argument("--only", nargs="+", help="only implementations of these names")
    parser.add_argument("--repeats", type=int, default=50, help="runs of one measurement, at most")
    parser.add_argument("--seconds", type=float, default=0.3, help="of one measurement, about, at most")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("operations: no CUDA device here; nothing is measured (--device cpu tries the script out)")
        return 2
    device, limits = torch.device(options.device), Limits(options.repeats, options.seconds)
    torch._dynamo.config.automatic_dynamic_shapes = False  # Megatron-Core's fusions leave it to torch
    if {"loss", "head"} & set(options.operation):
        start_megatron_core(device)
    copy = copy_bytes_per_second(device, limits)
    print(f"copy: {copy / 1e12:.3f} TB/s read + write", flush=True)
    file = ResultFile(
        options.json,
        environment=environment(device),
        command=" ".join(["python", "benchmarks/kernels/operations.py", *(argv or sys.argv[1:])]),
        sequence=options.sequence,
        copy_bytes_per_second=round(copy),
    )
    wanted = Selection(
        options.operation, options.model, options.tp, options.sequence, options.vocabulary, device
    )
    if options.resume:
        file.resume()
    try:
        for task in tasks(wanted):
            measure_task(task, options.only, device, limits, copy, file)
    except DeviceLost as lost:
        print(f"operations: the device stopped answering after {lost}; --resume measures the rest")
        return 3
    file.facts["copy_bytes_per_second_at_the_end"] = round(copy_bytes_per_second(device, limits))
    file.facts["missing"] = peers.missing
    file.write()
    for peer, reason in peers.missing.items():
        print(f"{peer}: not measured, {reason}")
    failures = failures_of_ours(file.rows)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
