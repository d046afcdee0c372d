"""The linear layer whose weight gradient goes straight into main_grad, on one rank."""

from __future__ import annotations

import pytest
import torch

from megatron_salamandra.model.linear import fused_gradient_linear


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_nothing_is_computed_for_what_needs_no_gradient(frozen: str) -> None:
    x = torch.randn(5, 2, 8, requires_grad=frozen != "input")
    weight = torch.nn.Parameter(torch.randn(6, 8), requires_grad=frozen != "weight")
    weight.main_grad = torch.zeros(6, 8)  # type: ignore[attr-defined]
    fused_gradient_linear(x, weight, sum_over=None, sequence_parallel=False).sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert bool(weight.main_grad.any()) == (frozen != "weight")  # type: ignore[attr-defined]
