"""The compiled kernels, checked without a GPU: no spills, no stack, 128-bit accesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed (pip install triton): nothing to compile")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Single numbers of a row (position, statistics, label, lse): everything else moves 16 bytes at a time.
SCALAR_ACCESSES = {
    "rope-documents": (2, 0),
    "loss-forward": (2, 3),
    "loss-backward": (3, 0),
    "norm-forward": (0, 1),
    "norm-backward": (1, 0),
}
# Up to 32 a multiprocessor runs all of its 2,048 threads, at 40 three quarters of them. The norm's backward
# keeps whole rows and the weight's gradient in registers.
MOST_REGISTERS = {"rope": 40, "swiglu": 32, "loss": 40, "norm": 64}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every kernel, at shapes of each published model, for Hopper, Ampere and Blackwell."""
    folder = tmp_path_factory.mktemp("machine-code")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "kernels"), environment.get("PYTHONPATH", "")])
    rows: list[dict[str, Any]] = []
    for number, options in enumerate(
        (
            ["--arch", "90", "--only", "2b-tp1", "--only", "40b", "--only", "loss"],
            ["--arch", "80", "--arch", "100", "--only", "7b-tp1", "--only", "loss"],
        )
    ):
        path = folder / f"report-{number}.json"
        command = [sys.executable, ROOT / "benchmarks/kernels/compile_report.py", *options, "--json", path]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr[-4000:]
        rows += json.loads(path.read_text())
    return rows


def name_of(row: dict[str, Any]) -> str:
    return f"{row['kernel']} on sm_{row['arch']}: {row}"


def test_nothing_spills(report: list[dict[str, Any]]) -> None:
    for row in report:
        assert row["stack_bytes"] == row["local_bytes"] == row["spills"] == 0, name_of(row)


def test_registers_stay_few(report: list[dict[str, Any]]) -> None:
    for row in report:
        assert row["registers"] <= MOST_REGISTERS[row["kernel"].split("-")[0]], name_of(row)


def test_tensors_move_sixteen_bytes_at_a_time(report: list[dict[str, Any]]) -> None:
    for row in report:
        kind = "-".join(row["kernel"].split("-")[:2])
        scalar_loads, scalar_stores = SCALAR_ACCESSES.get(kind, (0, 0))
        loads, stores = dict(row["loads_by_bits"]), dict(row["stores_by_bits"])
        assert loads.pop("128", 0) > 0, name_of(row)
        assert stores.pop("128", 0) > 0 or kind == "loss-forward", name_of(row)
        assert sum(loads.values()) <= scalar_loads and sum(stores.values()) <= scalar_stores, name_of(row)
