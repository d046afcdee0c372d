"""A masked document is predicted as if it stood alone, in every layout."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rank_jobs import token_losses
from rank_pool import RankPool
from training_runs import TrainingRuns

from megatron_salamandra.model.core_attention import CausalAttention

EOD = 2
MASKED, RESTARTED = "data.document_masking=true", "data.reset_positions=true"


def windows() -> NDArray[np.int64]:
    """Two windows of documents of 20, 30 and 15 tokens, the last one cut off by the end."""
    tokens = np.random.default_rng(3).integers(10, 250, (2, 65))
    tokens[:, [19, 49]] = EOD
    return tokens


def losses(pool: RankPool, tokens: NDArray[np.int64], *overrides: str, ranks: int = 1) -> NDArray[np.float32]:
    found: NDArray[np.float32] = pool.run(ranks, token_losses, list(overrides), tokens, EOD)[0]
    return found


@pytest.mark.parametrize(
    ("ranks", "overrides"),
    [
        (1, []),
        (1, [RESTARTED]),
        (2, ["parallel.tensor=2", "parallel.sequence=true", RESTARTED]),
        (1, ["kernels.rope=reference"]),
    ],
    ids=["masked", "restarted", "TP2+SP", "reference-rope"],
)
def test_a_masked_document_is_predicted_as_if_alone(
    rank_pool: RankPool, ranks: int, overrides: list[str]
) -> None:
    together = losses(rank_pool, windows(), MASKED, *overrides, ranks=ranks)
    for start, end in ((0, 20), (20, 50), (50, 65)):
        # Behind the document stands text of its own, which causal attention never sees from inside.
        alone = np.concatenate([windows()[:, start:end], np.full((2, 65 - (end - start)), 7)], axis=1)
        alone_losses = losses(rank_pool, alone)
        inside = end - start - 1
        np.testing.assert_allclose(together[:, start : start + inside], alone_losses[:, :inside], rtol=2e-5)


def test_without_a_mask_documents_see_each_other(rank_pool: RankPool) -> None:
    plain, masked = losses(rank_pool, windows()), losses(rank_pool, windows(), MASKED)
    np.testing.assert_allclose(plain[:, :19], masked[:, :19], rtol=2e-5)
    assert np.abs(plain[:, 20:] - masked[:, 20:]).max() > 1e-3


def test_restarted_positions_alone_change_what_earlier_documents_look_like(rank_pool: RankPool) -> None:
    plain, restarted = losses(rank_pool, windows()), losses(rank_pool, windows(), RESTARTED)
    np.testing.assert_allclose(plain[:, :19], restarted[:, :19], rtol=2e-5)
    assert np.abs(plain[:, 20:] - restarted[:, 20:]).max() > 1e-4


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_training_with_masks_is_the_same_in_every_layout(runs: TrainingRuns, recompute: str) -> None:
    common = [MASKED, RESTARTED, "training.steps=6", "optimizer.warmup_steps=2"]
    if not (runs.root / "masked-single").exists():
        assert runs.train("masked-single", 1, *common) == 0
    layout = ["parallel.tensor=2", "parallel.pipeline=2", "parallel.sequence=true"]
    name = f"masked-{recompute}"
    assert runs.train(name, 4, *common, *layout, f"training.recompute={recompute}") == 0
    assert runs.losses(name) == pytest.approx(runs.losses("masked-single"), rel=1e-5)


@pytest.mark.gpu
def test_flash_attention_by_document_equals_masked_attention() -> None:
    config = SimpleNamespace(kv_channels=64)
    attention = CausalAttention.__new__(CausalAttention)
    torch.nn.Module.__init__(attention)
    attention.config, attention.scale = config, 0.125
    bounds = torch.tensor([0, 20, 50, 65, 100, 130], dtype=torch.int32, device="cuda")
    shapes = ((65, 2, 8, 64), (65, 2, 4, 64), (65, 2, 4, 64))
    tensors = [torch.randn(shape, device="cuda", requires_grad=True) for shape in shapes]
    exact = attention(*tensors, bounds)
    gradients = torch.autograd.grad(exact.square().sum(), tensors)
    rounded = [tensor.detach().bfloat16().requires_grad_() for tensor in tensors]
    fast = attention(*rounded, bounds)
    assert fast.shape == exact.shape
    torch.testing.assert_close(fast.float(), exact, rtol=2e-2, atol=2e-2)
    for found, expected in zip(
        torch.autograd.grad(fast.float().square().sum(), rounded), gradients, strict=True
    ):
        torch.testing.assert_close(found.float(), expected, rtol=5e-2, atol=1e-1)
