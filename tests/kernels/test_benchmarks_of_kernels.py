"""The benchmark scripts still run, at sizes that measure nothing, and lose no row to another's failure."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks/kernels"
OPERATIONS = ["--device=cpu", "--sequence=4", "--vocabulary=4096", "--model=2b", "--tp=8", "--repeats=1"]
STEP = ["tiny", "model.layers=1", "model.hidden_size=32", "model.ffn_hidden_size=48", "model.vocab_size=999"]
STEP += ["data.sequence_length=16", "--steps=2", "--warmup=0", "--threads=1"]


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **variables}
    # Compiling for the CPU takes a minute; without it the same functions run in plain torch.
    environment["TORCHDYNAMO_DISABLE"] = "1"
    command = [sys.executable, SCRIPTS / script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def results(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by name; by operation and implementation for those of operations.py."""
    rows = json.loads(path.read_text())["results"]
    return {row.get("name") or f"{row['operation']} {row['implementation']}": row for row in rows}


def module_of(name: str) -> ModuleType:
    """A script of the benchmarks that imports none of the others."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_kernels_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_head_memory_runs_and_its_implementations_agree(tmp_path: Path) -> None:
    sizes = ["--vocabulary=999", "--hidden=16", "--tokens=30", "--chunk-tokens", "7", "30"]
    peers = ["--only", "torch", "ours-in-place", "ours-chunked"]
    done = run("head_memory.py", *sizes, *peers, f"--json={tmp_path / 'result.json'}")
    assert done.returncode == 0, done.stderr
    rows = results(tmp_path / "result.json")
    assert list(rows) == ["torch", "ours-in-place", "ours-chunked-7", "ours-chunked-30"]
    for row in rows.values():
        for key in ("loss", "grad_hidden", "grad_weight"):
            assert row[key] == pytest.approx(rows["torch"][key], rel=1e-5)


def test_every_operation_and_every_peer_at_hand_gives_the_numbers_of_eager_torch(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = run("operations.py", *OPERATIONS, f"--json={file}")
    assert done.returncode == 0, done.stderr
    rows = results(file)
    assert not [row for row in rows.values() if "error" in row]
    expected = {
        "loss": {"ours", "megatron-core", "megatron-core-fused"},
        "norm": {"ours", "torch"},
        "rope": {"ours", "megatron-core"},
        "swiglu": {"ours", "ours-overwriting", "megatron-core"},
        "head": {"ours", "ours-chunked-2048", "ours-chunked-4096", "megatron-core-fused", "torch"},
    }
    for operation, implementations in expected.items():
        for name in implementations | {"eager"}:
            row = rows[f"{operation} {name}"]
            # Zero would mean that results are compared with themselves.
            assert (row["difference_from_eager"] < 0.01) and row["forward_backward_ms"] > 0
    assert rows["head ours"]["difference_from_eager"] > 0
    assert "share_of_copy" in rows["loss ours"] and "share_of_copy" not in rows["head ours"]


def test_an_operation_that_fails_costs_its_own_row_and_a_later_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    rope = [*OPERATIONS, "--operation=rope", f"--json={file}", "--only", "ours", "eager"]
    done = run("operations.py", *rope, SALAMANDRA_KERNELS="triton", TRITON_INTERPRET="0")
    assert done.returncode == 1 and "rope 2b tp8 ours: RuntimeError" in done.stderr
    first = results(file)
    assert (
        "only in Triton's interpreter" in first["rope ours"]["error"] and "error" not in first["rope eager"]
    )
    done = run("operations.py", *rope, "torch", "megatron-core", "--resume")
    assert done.returncode == 1, "the row that failed is kept, and still counts"
    second = results(file)
    assert second["rope eager"] == first["rope eager"]
    assert "error" not in second["rope megatron-core"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
@pytest.mark.parametrize("script", ["operations.py", "run_all.py"])
def test_nothing_is_measured_without_a_gpu(script: str, tmp_path: Path) -> None:
    done = run(script, *([f"--out={tmp_path}"] if script == "run_all.py" else []))
    assert done.returncode == 2 and "nothing is measured" in done.stdout
    assert not list(tmp_path.iterdir())


def test_variants_of_a_training_step_have_the_same_loss(tmp_path: Path) -> None:
    variants = ["ours", "megatron-core", "ours-chunked-head"]
    done = run("training_step.py", *STEP, "--only", *variants, f"--json={tmp_path / 'result.json'}")
    assert done.returncode == 0, done.stderr
    rows = results(tmp_path / "result.json")
    assert list(rows) == variants
    for row in rows.values():
        assert row["loss"] == pytest.approx(rows["ours"]["loss"], rel=1e-4)
        assert row["cpu_seconds"] > 0 and row["share_of"] == "ours"


def test_a_variant_that_fails_costs_its_own_row(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    # Megatron-Core's loss knows no z-loss, and Transformer Engine runs on CUDA only.
    variants = ["--only", "ours-without-loss", "transformer-engine", "ours"]
    done = run("training_step.py", *STEP, "training.z_loss=0.0001", *variants, f"--json={file}")
    assert done.returncode == 0, done.stderr
    rows = results(file)
    assert "z_loss" in rows["ours-without-loss"]["error"] and rows["transformer-engine"]["error"]
    assert rows["ours"]["time_share"] == 1


def test_the_exit_status_says_that_our_own_code_failed_or_was_too_slow(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = run("training_step.py", *STEP, "--variant-seconds=0.2", "--only", "ours", f"--json={file}")
    assert done.returncode == 1
    assert results(file)["ours"]["error"] == "not measured: not ready after 0 s"


def row_of(operation: str, implementation: str, **values: Any) -> dict[str, Any]:
    return {"operation": operation, "shape": "2b tp1", "implementation": implementation} | values


def share(forward_backward: float, forward: float, *, host_bound: bool = False) -> dict[str, Any]:
    row = {"share_of_copy": forward_backward, "forward_share_of_copy": forward, "host_bound": host_bound}
    return row | {"forward_backward_ms": 0.25}


def test_tables_show_shares_of_copy_times_of_ours_and_what_failed() -> None:
    operations = {
        "environment": {"device": "A GPU", "date": "2026-01-02", "versions": {"torch": "2", "apex": None}},
        "copy_bytes_per_second": 3.0e12,
        "results": [
            row_of("rope", "ours", **share(0.914, 0.9)),
            row_of("rope", "eager", **share(0.2, 0.1, host_bound=True)),
            row_of("rope", "liger-kernel", error="ValueError: results differ from those of eager torch"),
            row_of("head", "ours", forward_backward_ms=40.0, peak_extra_bytes=4 << 30),
            row_of("head", "eager", forward_backward_ms=50.0, peak_extra_bytes=20 << 30),
            row_of("head", "torch", error="OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"),
            row_of("head", "ours", forward_backward_ms=10.0, peak_extra_bytes=1 << 30) | {"shape": "2b tp4"},
        ],
    }
    step = {"seconds": 0.25, "tokens_per_second": 32768.0, "mfu": 0.4234, "peak_gib": 60.04}
    training = {
        "environment": None,
        "config": "salamandra-2b",
        "overrides": ["model.layers=12"],
        "results": [
            {"name": "ours", "what": "the defaults", "time_share": 1.0, "peak_share": 1.0} | step,
            {"name": "megatron-core", "what": "stock", "error": "OutOfMemoryError: CUDA out of memory"},
        ],
    }
    lines = module_of("tables").document(operations, [training]).splitlines()
    assert lines[0] == "A GPU, 2026-01-02; torch 2."
    assert "3.00 TB/s" in lines[2]
    assert "| rope | ours, ms | ours | eager | liger-kernel |" in lines
    assert "| 2b tp1 | 0.250 | 0.91 (0.90) | 0.20 (0.10)* | failed |" in lines
    assert "| 2b tp1 | 40.00 ms, 4.00 GiB | 1.25, 20.00 GiB | out of memory |" in lines
    assert "| 2b tp4 | 10.00 ms, 1.00 GiB | not measured | not measured |" in lines
    assert "Training step, salamandra-2b model.layers=12:" in lines
    assert "| ours | the defaults | 250.0 | 32,768 | 42.3 % | 60.0 | 1.000 | 1.000 |" in lines
    assert "| megatron-core | stock | out of memory |  |  |  |  |  |" in lines


def test_a_process_that_takes_too_long_is_ended_with_what_it_started() -> None:
    command = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '300'])"]
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        # Returns when nobody can write to its output any more: after 300 s if the grandchild lived on.
        module_of("timed_process").run_within(command, 1.0, capture=True)
    assert time.monotonic() - began < 200


@pytest.mark.gpu
def test_the_stopwatch_leaves_out_what_the_host_needs_to_launch() -> None:
    stopwatch = module_of("stopwatch")
    x = torch.zeros(1024, device="cuda")

    def many_small_kernels() -> None:
        for _ in range(50):
            x.add_(1)

    timing = stopwatch.time_of(many_small_kernels, x.device, stopwatch.Limits())
    assert not timing.host_bound and timing.milliseconds < 0.2
