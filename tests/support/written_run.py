"""Run directories as training leaves them, of any size, without training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_salamandra.config import load_run_config
from megatron_salamandra.foundation.json_files import append_json_lines, write_json
from megatron_salamandra.run_directory import RunDirectory

HOSTILE = '<script>alert("x")</script>&\x00\x1b[31m\ud800'
"""A text that no page may take for markup."""


def at(second: int, kind: str, **details: Any) -> dict[str, Any]:
    """An event, so many seconds after a fixed moment."""
    day, rest = divmod(second, 86400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return {"time": f"2026-01-{day % 28 + 1:02d}T{clock}.000+00:00", "event": kind, **details}


def step_values(step: int, languages: Sequence[str] = ()) -> dict[str, Any]:
    """A line of ``metrics.jsonl``: a falling loss with a ripple, and a ledger where there are languages."""
    values: dict[str, Any] = {
        "step": step,
        "loss": 2.0 + 8.0 / math.sqrt(step) + 0.05 * math.sin(step * 12.9898),
        "grad_norm": 1.0 + 0.2 * math.cos(step * 78.233),
        "lr": 3e-4 / math.sqrt(1 + step / 100),
        "tokens": 4096 * step,
        "tokens_per_second": 2048.0 + step % 7,
        "tokens_per_second_per_rank": 512.0,
        "model_flops_per_second_per_rank": 1e12,
        "mfu": 0.4,
        "seconds": {"data": 0.25, "forward_backward": 1.25, "optimizer": 0.25, "step": 2.0},
        "peak_memory_bytes": 1 << 30,
        "seconds_between_steps": {"validation": 0.5, "checkpoint": 0.25, "callbacks": 0.25},
    }
    if languages:
        share = 4096 * step // len(languages)
        values["languages"] = {name: {"tokens": share, "epochs": step / 1000} for name in languages}
    return values


def write_run(
    path: Path,
    *,
    steps: int,
    languages: Sequence[str] = ("ca", "en"),
    validate_every: int = 50,
    events: Sequence[dict[str, Any]] | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Write the records of a run of ``steps`` recorded steps; finished, unless ``events`` say otherwise."""
    path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path)
    config = load_run_config("tiny", [f"training.steps={max(steps, 1)}", *overrides])
    directory.config.write_text(config.to_yaml())
    with directory.metrics.open("w") as stream:
        for step in range(1, steps + 1):
            stream.write(json.dumps(step_values(step, languages if step % 10 == 0 else ())) + "\n")
    with directory.validation.open("w") as stream:
        for step in range(0, steps + 1, validate_every):
            for number, name in enumerate((*languages, "macro", "micro")):
                bits = 1.0 + (1 + number / 10) / (1 + step / 100)
                score = {
                    "step": step,
                    "language": name,
                    "loss": bits,
                    "perplexity": 2.0,
                    "bits_per_byte": bits,
                }
                stream.write(json.dumps({**score, "tokens": 100}) + "\n")
    if events is None:
        events = [
            at(0, "start", layout="TP1 x PP1 x DP4 (4 ranks)"),
            at(3 * steps, "end", step=steps, exit_code=0),
        ]
    append_json_lines(directory.events, events)
    write_json(
        directory.environment,
        {
            "started": "2026-01-01T00:00:00+00:00",
            "git_revision": "0123456789",
            "python": "3.11.7",
            "packages": {"torch": "2.13.0", "apex": None},
            "platform": "CUDA over NCCL: NVIDIA H100 80GB HBM3 (torch 2.13.0)",
            "layout": "TP1 x PP1 x DP4 (4 ranks)",
            "hosts": ["node1", "node2"],
            "slurm": {"SLURM_JOB_ID": "77"},
            "command": ["train.py", "tiny"],
        },
    )
    return path
