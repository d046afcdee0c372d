"""Every parallel layout trains the same model: same weights at the start, same loss at every step."""

from __future__ import annotations

import pytest
import torch
from layouts import BF16_BOUND, LAYOUTS
from training_runs import TrainingRuns

STEPS = 20


@pytest.fixture(scope="module")
def single(runs: TrainingRuns) -> list[float]:
    assert runs.train("single", 1) == 0
    return runs.losses("single")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_equals_a_single_rank_at_every_step(
    runs: TrainingRuns, single: list[float], layout: str
) -> None:
    ranks, overrides = LAYOUTS[layout]
    assert runs.train(layout, ranks, *overrides) == 0
    losses = runs.losses(layout)
    assert len(losses) == STEPS
    assert losses == pytest.approx(single, rel=1e-5)
    # It must have learnt something, or the comparison proves little.
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("layout", ["TP2xPP2", "TP2xPP2xDP2", "DP2-overlap"])
def test_final_weights_and_optimizer_equal_a_single_rank(
    runs: TrainingRuns, single: list[float], layout: str
) -> None:
    if not runs.checkpoint(layout, STEPS).exists():
        ranks, overrides = LAYOUTS[layout]
        assert runs.train(layout, ranks, *overrides) == 0
    expected, found = runs.tensors("single", STEPS), runs.tensors(layout, STEPS)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        # Adam divides by the root of tiny second moments, which amplifies rounding of single weights.
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=2e-5, msg=key)


@pytest.mark.parametrize("layout", ["TP2+SP", "PP2xVPP2", "DP2"])
def test_bf16_stays_within_its_bound(runs: TrainingRuns, layout: str) -> None:
    if not (runs.root / "single-bf16").exists():
        assert runs.train("single-bf16", 1, "precision=bf16") == 0
    ranks, overrides = LAYOUTS[layout]
    assert runs.train(f"{layout}-bf16", ranks, "precision=bf16", *overrides) == 0
    assert runs.losses(f"{layout}-bf16") == pytest.approx(runs.losses("single-bf16"), rel=BF16_BOUND)
