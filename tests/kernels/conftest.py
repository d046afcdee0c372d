"""Where the Triton kernels run in these tests.

Tests that ask for ``kernel_device`` need a GPU or Triton's interpreter. The interpreter must be chosen before
triton is first imported, so without a GPU those tests are left out here and ``test_interpreter.py`` runs them
in a process of their own. To see them one by one: ``TRITON_INTERPRET=1 pytest tests/kernels``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
PACKAGE_ROOT = HERE.parents[1] / "kernels"
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if HAS_TRITON and (INTERPRETING or torch.cuda.is_available()):
        return
    left_out = [
        item
        for item in items
        if item.path.parent == HERE and "kernel_device" in getattr(item, "fixturenames", ())
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def kernel_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The device whose tensors go to the Triton kernels; every use in the test is forced there."""
    monkeypatch.setenv("SALAMANDRA_KERNELS", "triton")
    return torch.device("cpu" if INTERPRETING else "cuda")


@pytest.fixture
def rounding() -> dict[torch.dtype, float]:
    """Largest error allowed, relative to the largest value; the interpreter truncates to bf16."""
    return {torch.float32: 1e-6, torch.bfloat16: 2**-7 if INTERPRETING else 2**-8}


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """New tensors start as NaN, so an element that a kernel forgets shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """``run_ranks(script, count, *arguments)`` runs a script as gloo ranks and returns what each one saved.

    The script gets: rank, count, path of the rendezvous file, path to save its result to, then the arguments.
    """

    def run(script: str, count: int, *arguments: str) -> list[Any]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE_ROOT), environment.get("PYTHONPATH", "")])
        results = [tmp_path / f"rank-{rank}.pt" for rank in range(count)]
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    HERE / script,
                    str(rank),
                    str(count),
                    tmp_path / "rendezvous",
                    result,
                    *arguments,
                ],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank, result in enumerate(results)
        ]
        outputs = [process.communicate(timeout=180)[0] for process in processes]
        for rank, (process, output) in enumerate(zip(processes, outputs, strict=True)):
            assert process.returncode == 0, f"rank {rank} of {script} failed:\n{output}"
        return [torch.load(result) for result in results]

    return run
