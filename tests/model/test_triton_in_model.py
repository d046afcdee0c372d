"""The Triton kernels inside Megatron-Core's model: what they compute there, in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SUPPORT = Path(__file__).parents[1] / "support"
SMALL = ["model.layers=1", "data.sequence_length=16"]
JOB = """
import pickle, sys
from rank_jobs import loss_and_gradients
pickle.dump(loss_and_gradients(sys.argv[2:]), open(sys.argv[1], "wb"))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="training tests run the kernels on the GPU"),
]


def computed(kernels: str, out: Path, *overrides: str) -> dict[str, Any]:
    """Loss, gradients and checkpoint keys, in a process of its own: the interpreter is chosen at import."""
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "SALAMANDRA_KERNELS": kernels,
        "PYTHONPATH": str(SUPPORT),
        "OMP_NUM_THREADS": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "0",
    }
    command = [sys.executable, "-c", JOB, str(out), *SMALL, *overrides]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = pickle.loads(out.read_bytes())
    return found


@pytest.mark.parametrize(
    "overrides",
    [["training.recompute=full"], ["kernels.loss_chunk_tokens=6", "training.z_loss=1e-2"]],
    ids=["recompute", "chunked head and z-loss"],
)
def test_kernels_compute_what_the_reference_computes(tmp_path: Path, overrides: list[str]) -> None:
    theirs = computed("reference", tmp_path / "reference", *overrides)
    ours = computed("triton", tmp_path / "triton", *overrides)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-6)
    assert ours["state"] == theirs["state"]
    for name, gradient in theirs["gradients"].items():
        assert np.abs(gradient).max() > 0, name
        assert np.abs(ours["gradients"][name] - gradient).max() <= 1e-6 * np.abs(gradient).max(), name
