"""Every measurement of the kernels on one GPU, unattended: ``run_all.py --out benchmarks/kernels/results/NAME``.

Three parts, each with its share of the time and every row on disk when it is measured:

- ``operations.json``: RoPE, SwiGLU, RMSNorm, loss, output layer + loss at the shapes of the 2B, 7B and 40B, tensor
  parallelism 1 and 4, ours beside every peer that is installed (operations.py);
- ``training-step.json``: a step of the 2B at 8,192 tokens, ours, without each of our kernels in turn, and
  Megatron-Core's (training_step.py). Its loss is estimated not to fit beside all layers into 80 GB: then an error;
- ``training-step-12-layers.json``: all of that again with half of the layers, where Megatron-Core's loss fits.

``tables.md`` beside them has the tables. The exit status is 1 when our own code failed somewhere, and 0 when only
peers did; what the time did not suffice for is "not measured".

Time on an H100, estimated and not measured: operations 200 s (140 rows; two thirds of it torch.compile), the
steps 250 s (18 processes of 14 s, 4 s of them steps). ``--seconds`` bounds the whole: 570 s unless given.
``--try-out`` runs everything on the CPU in a minute, at sizes that measure nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import training_step
from tables import document
from timed_process import run_within

HERE = Path(__file__).parent
# The longest that one process of a training step may take: a hanging one must not cost the others.
VARIANT_SECONDS = 75.0
# A process of operations.py that dies has one row fewer to measure each time.
RESTARTS = 5


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run."""

    operations: tuple[str, ...]
    """Arguments of operations.py."""

    model: tuple[str, ...]
    """Configuration of the training step, and its overrides."""

    steps: tuple[str, ...]
    """Other arguments of training_step.py."""

    shallow: tuple[str, ...]
    """Overrides that make room for Megatron-Core's loss."""


PLAN = Plan(
    operations=(),
    model=("salamandra-2b",),
    steps=("--steps=10", "--warmup=3"),
    shallow=("model.layers=12",),
)
TRY_OUT = Plan(
    operations=(
        *("--device=cpu", "--sequence=4", "--vocabulary=4096", "--model=2b", "--tp=8", "--repeats=1"),
        *("--only", "ours", "eager"),
    ),
    model=(
        *("tiny", "model.layers=2", "model.hidden_size=32", "model.ffn_hidden_size=48"),
        *("model.vocab_size=999", "data.sequence_length=16"),
    ),
    steps=("--steps=1", "--warmup=0", "--threads=1", "--only", "ours", "megatron-core-unfused"),
    shallow=("model.layers=1",),
)


def measure_operations(plan: Plan, file: Path, seconds: float) -> int:
    """Exit status of operations.py; 1 if the time was too short."""
    end = time.monotonic() + seconds
    command = [sys.executable, "-u", str(HERE / "operations.py"), *plan.operations, f"--json={file}"]
    for _ in range(1 + RESTARTS):
        try:
            status = run_within([*command, "--resume"], end - time.monotonic()).returncode
        except subprocess.TimeoutExpired:
            print(f"operations: stopped after {seconds:.0f} s; the rows so far are in {file}", flush=True)
            return 1
        if status in (0, 1, 2):
            break
    return status


def read(path: Path) -> dict[str, Any] | None:
    """A result file, if it was written."""
    return json.loads(path.read_text()) if path.exists() else None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=float, default=570, help="for everything (default: 570)")
    parser.add_argument("--try-out", action="store_true", help="on the CPU, at sizes that measure nothing")
    options = parser.parse_args(argv)
    plan = TRY_OUT if options.try_out else PLAN
    end = time.monotonic() + options.seconds
    out: Path = options.out
    operations = out / "operations.json"
    steps = [out / "training-step.json", out / "training-step-12-layers.json"]
    for old in (operations, *steps):
        old.unlink(missing_ok=True)
    status = measure_operations(plan, operations, 0.47 * options.seconds)
    if status == 2:
        return status
    failed = status != 0
    for file, overrides, share in zip(steps, ((), plan.shallow), (0.55, 1.0), strict=True):
        seconds = share * (end - time.monotonic())
        limits = [f"--seconds={seconds:.0f}", f"--variant-seconds={VARIANT_SECONDS:.0f}"]
        arguments = [*plan.model, *overrides, *plan.steps, *limits, f"--json={file}"]
        failed |= training_step.main(arguments) != 0
        tables = document(read(operations), [found for path in steps if (found := read(path))])
        (out / "tables.md").write_text(tables)
    print(tables)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
