"""The same training on a CUDA device: losses of the host, background saves, resume."""

from __future__ import annotations

import pytest
from training_runs import TrainingRuns

pytestmark = pytest.mark.gpu

GPU = "platform=cuda"


def test_one_gpu_gives_the_losses_of_the_host(runs: TrainingRuns) -> None:
    assert runs.train("host-beside-gpu", 1) == 0
    assert runs.train("gpu", 1, GPU) == 0
    assert runs.losses("gpu") == pytest.approx(runs.losses("host-beside-gpu"), rel=1e-3)


def test_a_run_on_a_gpu_saves_in_the_background_and_resumes(runs: TrainingRuns) -> None:
    """To rounding, not to the bit: the backward pass of flash attention adds in no fixed order."""
    overrides = [GPU, "precision=bf16", "checkpoint.asynchronous=true", "checkpoint.every_steps=5"]
    assert runs.train("gpu-straight", 1, *overrides) == 0
    assert runs.train("gpu-halves", 1, *overrides, "training.stop_after_steps=10") == 75
    assert runs.train("gpu-halves", 1, *overrides) == 0
    assert runs.losses("gpu-halves") == pytest.approx(runs.losses("gpu-straight"), rel=2e-3)
