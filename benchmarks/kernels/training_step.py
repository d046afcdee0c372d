"""One training step of a whole model on one device: our kernels beside stock Megatron-Core.

Every variant is the same model in a process of its own: forward, backward and AdamW over one global batch of
random tokens, through the project's own model and optimizer. Variants differ in the kernels alone
(training_variants.py); all of them use the same attention. A variant that fails, for want of memory say, or that
no time is left for, is a row with an error. The file is written after every row.

On a GPU: ``python benchmarks/kernels/training_step.py salamandra-2b --json FILE`` (run_all.py does this and more).
At 8,192 tokens the loss of Megatron-Core is estimated to need more memory than 80 GB leave it beside all 24 layers:
compare with it under ``model.layers=12``, which run_all.py measures too. On the CPU (``--threads 2``), give
overrides that make the model small; only the ratios mean something there. The exit status is 1 when a variant failed
that runs our code alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from result_file import ResultFile
from timed_process import run_within
from training_variants import OURS, VARIANTS

MEASUREMENT = Path(__file__).with_name("training_measurement.py")


def measured(name: str, arguments: list[str], seconds: float | None) -> dict[str, Any]:
    """One row of one variant: what its process printed within ``seconds``, or an error."""
    if reason := VARIANTS[name].missing_package():
        return {"error": reason}
    if seconds is not None and seconds <= 0:
        return {"error": "not measured: the time was spent before"}
    try:
        done = run_within([sys.executable, str(MEASUREMENT), name, *arguments], seconds, capture=True)
    except subprocess.TimeoutExpired:
        return {"error": f"not measured: not ready after {seconds:.0f} s"}
    try:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"error": f"the process ended with status {done.returncode}"}
    return row


def add_shares(rows: list[dict[str, Any]]) -> None:
    """Time and peak memory of each row as shares of the first that was measured."""
    measured_rows = [row for row in rows if "error" not in row]
    for row in measured_rows:
        first = measured_rows[0]
        row["share_of"] = first["name"]
        row["time_share"] = round(row[row["clock"]] / first[row["clock"]], 3)
        row["peak_share"] = round(row["peak_gib"] / first["peak_gib"], 3)


def time_of(row: dict[str, Any]) -> float:
    """Seconds of a row by its own clock; an error is slower than anything."""
    return float("inf") if "error" in row else float(row[row["clock"]])


def line_of(row: dict[str, Any]) -> str:
    """One row for the console."""
    if "error" in row:
        return f"{row['name']:<30} {row['error']}"
    return (
        "{name:<30} {seconds:>9.3f} s  {tokens_per_second:>9.0f} tokens/s  peak {peak_gib:>7.2f} GiB  "
        "time {time_share:.2f}  peak {peak_share:.2f}  loss {loss:.6f}".format(**row)
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", help="YAML file or preset, such as salamandra-2b")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as training.global_batch_size=4"
    )
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--steps", type=int, default=10, help="measured steps (default: 10)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before (default: 3)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often the variants take turns (default: 1)"
    )
    parser.add_argument("--threads", type=int, help="threads on the CPU")
    parser.add_argument("--seconds", type=float, help="for all variants (default: as long as it takes)")
    parser.add_argument(
        "--variant-seconds", type=float, help="for one of them (default: as long as it takes)"
    )
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_intermixed_args(argv)
    # One sample per step unless asked otherwise: the published batch belongs to 256 devices.
    arguments = [
        options.config,
        "training.global_batch_size=1",
        "training.micro_batch_size=1",
        *options.overrides,
        f"--steps={options.steps}",
        f"--warmup={options.warmup}",
        *([f"--threads={options.threads}"] if options.threads else []),
    ]
    end = None if options.seconds is None else time.monotonic() + options.seconds
    file = ResultFile(
        options.json,
        environment=None,
        command=" ".join(["python", "benchmarks/kernels/training_step.py", *(argv or sys.argv[1:])]),
        config=options.config,
        overrides=options.overrides,
    )
    # Those that take turns keep their best round.
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for name in options.only:
            left = [] if end is None else [end - time.monotonic()]
            left += [] if options.variant_seconds is None else [options.variant_seconds]
            row = measured(name, arguments, min(left, default=None))
            file.facts["environment"] = row.pop("environment", file.facts["environment"])
            row = {"name": name, "what": VARIANTS[name].what} | row
            if name not in best or time_of(row) < time_of(best[name]):
                best[name] = row
            file.rows = list(best.values())
            add_shares(file.rows)
            file.write()
            print(line_of(best[name]), flush=True)
    return 1 if any("error" in row for row in file.rows if row["name"] in OURS) else 0


if __name__ == "__main__":
    sys.exit(main())
