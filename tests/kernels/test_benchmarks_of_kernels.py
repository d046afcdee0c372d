"""The benchmark scripts still run: at sizes that measure nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "benchmarks/kernels" / script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def results(path: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads(path.read_text())["results"]
    return {row.get("implementation", row.get("name")): row for row in rows}


def test_head_memory_runs_and_its_implementations_agree(tmp_path: Path) -> None:
    sizes = ["--vocabulary=999", "--hidden=16", "--tokens=30", "--chunk-tokens=7"]
    peers = ["--only=torch", "--only=ours-in-place", "--only=ours-chunked"]
    done = run("head_memory.py", *sizes, *peers, f"--json={tmp_path / 'result.json'}")
    assert done.returncode == 0, done.stderr
    rows = results(tmp_path / "result.json")
    for row in rows.values():
        for key in ("loss", "grad_hidden", "grad_weight"):
            assert row[key] == pytest.approx(rows["torch"][key], rel=1e-5)


def test_operations_run_on_the_cpu(tmp_path: Path) -> None:
    small = ["--device=cpu", "--sequence=4", "--model=2b", "--tp=8", "--repeats=1", "--only", "ours", "eager"]
    operations = ["--operation", "rope", "swiglu", "norm"]
    done = run("operations.py", *small, *operations, f"--json={tmp_path / 'result.json'}")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["results"]
    assert len(rows) == 6 and not any("error" in row for row in rows), rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_operations_measure_nothing_without_a_gpu() -> None:
    done = run("operations.py")
    assert done.returncode == 2 and "nothing is measured" in done.stdout


def test_variants_of_a_training_step_have_the_same_loss(tmp_path: Path) -> None:
    small = [
        "tiny",
        "model.layers=1",
        "model.hidden_size=32",
        "model.ffn_hidden_size=48",
        "model.vocab_size=999",
    ]
    variants = ["--only", "megatron-core-unfused", "ours-chunked-head"]
    short = ["model.sequence_length=16", "--steps=2", "--warmup=0", "--threads=1"]
    done = run("training_step.py", *small, *short, *variants, f"--json={tmp_path / 'result.json'}")
    assert done.returncode == 0, done.stderr
    rows = results(tmp_path / "result.json")
    assert len(rows) == 2
    for row in rows.values():
        assert row["loss"] == pytest.approx(rows["megatron-core-unfused"]["loss"], rel=1e-4)
        assert row["cpu_seconds"] > 0
