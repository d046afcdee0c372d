"""Optimizers of a user's own."""

from __future__ import annotations

import pytest
import torch
from rank_jobs import SMALL_CONFIG
from sample_optimizers import Sgd
from training_runs import TrainingRuns

from megatron_salamandra.config import ConfigError, load_run_config
from megatron_salamandra.optim import check_optimizer

SGD = ["optimizer.name=sample_optimizers:Sgd", "optimizer.lr=0.1", "optimizer.options={momentum: 0.8}"]


def test_sgd_is_the_sgd_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(50, generator=generator)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    sgd = Sgd([mine], lr=0.1, weight_decay=0.0, momentum=0.8)
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.8)
    for _ in range(5):
        gradient = torch.randn(50, generator=generator)
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        sgd.step()
        reference.step()
    assert torch.equal(mine, theirs)


def test_adamw_written_as_an_optimizer_of_ones_own_trains_like_adamw(runs: TrainingRuns) -> None:
    """So weights, state, step and hyperparameters arrive as the base class promises, shards and all."""
    short = ["training.steps=6", "optimizer.warmup_steps=2", "optimizer.beta2=0.9"]
    assert runs.train("built-in-adamw", 2, *short) == 0
    assert runs.train("slow-adamw", 2, *short, "optimizer.name=sample_optimizers:SlowAdamW") == 0
    assert runs.losses("slow-adamw") == pytest.approx(runs.losses("built-in-adamw"), rel=1e-5)


def test_an_optimizer_of_ones_own_resumes_bit_exactly_and_in_another_layout(runs: TrainingRuns) -> None:
    assert runs.train("sgd", 2, *SGD) == 0
    assert runs.losses("sgd")[-1] < runs.losses("sgd")[0]
    assert runs.train("sgd-halves", 2, *SGD, "training.stop_after_steps=10") == 75
    assert runs.train("sgd-halves", 2, *SGD) == 0
    assert runs.losses("sgd-halves") == runs.losses("sgd")
    expected, found = runs.tensors("sgd", 20), runs.tensors("sgd-halves", 20)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert runs.train("sgd-resharded", 2, *SGD, "training.stop_after_steps=10") == 75
    assert runs.train("sgd-resharded", 1, *SGD) == 0
    assert runs.losses("sgd-resharded") == pytest.approx(runs.losses("sgd"), rel=1e-5)


def test_a_run_keeps_its_optimizer(runs: TrainingRuns) -> None:
    assert runs.train("changed-optimizer", 1, "training.stop_after_steps=2") == 75
    assert runs.train("changed-optimizer", 1, *SGD) == 2
    assert "optimizer.name = sample_optimizers:Sgd" in runs.events("changed-optimizer")[-1]["error"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optimizer.name=sgd"], "expected adamw or an import path, package.module:Name"),
        (["optimizer.options={momentum: 0.9}"], "adamw has none; its keys are beta1, beta2 and eps"),
        (["optimizer.name=nowhere:Sgd"], "there is no module nowhere"),
        (["optimizer.name=sample_optimizers:Sdg"], "did you mean Sgd?"),
        (["optimizer.name=sample_optimizers:NotAnOptimizer"], "no subclass of"),
        (["optimizer.name=sample_optimizers:Sgd", "optimizer.options={moment: 1}"], "its options: "),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_optimizer(load_run_config(str(SMALL_CONFIG), overrides))
    assert str(refusal.value).startswith("command line: optimizer.")
    assert expected in str(refusal.value)
