"""The same training on CUDA devices: losses of the host, every layout over NCCL, background saves, resume."""

from __future__ import annotations

import pytest
import torch
from layouts import BF16_BOUND, LAYOUTS
from training_runs import TrainingRuns

pytestmark = pytest.mark.gpu

GPU = "platform=cuda"


def test_one_gpu_gives_the_losses_of_the_host(runs: TrainingRuns) -> None:
    assert runs.train("host-beside-gpu", 1) == 0
    assert runs.train("gpu", 1, GPU) == 0
    assert runs.losses("gpu") == pytest.approx(runs.losses("host-beside-gpu"), rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_losses_of_one_gpu(runs: TrainingRuns, layout: str, precision: str) -> None:
    """One process per GPU over NCCL; layouts of more ranks than there are GPUs are skipped by name."""
    ranks, overrides = LAYOUTS[layout]
    if (present := torch.cuda.device_count()) < ranks:
        pytest.skip(f"{layout} needs {ranks} GPUs, and there are {present}")
    given = [GPU, f"precision={precision}"]
    alone = f"one-gpu-{precision}"
    if not (runs.root / alone).exists():
        assert runs.train(alone, 1, *given) == 0
    name = f"gpu-{layout}-{precision}"
    assert runs.train(name, ranks, *given, *overrides) == 0
    bound = BF16_BOUND if precision == "bf16" else 1e-4
    assert runs.losses(name) == pytest.approx(runs.losses(alone), rel=bound)


def test_a_run_on_a_gpu_saves_in_the_background_and_resumes(runs: TrainingRuns) -> None:
    """To rounding, not to the bit: the backward pass of flash attention adds in no fixed order."""
    overrides = [GPU, "precision=bf16", "checkpoint.asynchronous=true", "checkpoint.every_steps=5"]
    assert runs.train("gpu-straight", 1, *overrides) == 0
    assert runs.train("gpu-halves", 1, *overrides, "training.stop_after_steps=10") == 75
    assert runs.train("gpu-halves", 1, *overrides) == 0
    assert runs.losses("gpu-halves") == pytest.approx(runs.losses("gpu-straight"), rel=2e-3)
