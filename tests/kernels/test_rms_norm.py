"""RMSNorm: Hugging Face's arithmetic to the bit, gradients against fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from salamandra_kernels import rms_norm


def formula(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_equals_hugging_face_to_the_bit(dtype: torch.dtype) -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    norm = llama.LlamaRMSNorm(96, 1e-5).to(dtype)
    torch.nn.init.normal_(norm.weight)
    x = (torch.randn(50, 3, 96) * 4).to(dtype)
    assert torch.equal(norm(x), rms_norm(x, norm.weight, 1e-5))


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)], ids=["fp32", "bf16"]
)
def test_gradients_equal_fp64(dtype: torch.dtype, bound: float) -> None:
    x, weight = torch.randn(40, 3, 96).to(dtype), torch.randn(96).to(dtype)
    upstream = torch.randn(40, 3, 96).to(dtype)
    exact = [x.double().requires_grad_(), weight.double().requires_grad_()]
    formula(*exact).backward(upstream.double())
    mine = [x.requires_grad_(), weight.requires_grad_()]
    rms_norm(mine[0], mine[1], 1e-5).backward(upstream)
    for ours, theirs in zip(mine, exact, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert (ours.grad.double() - theirs.grad).abs().max() <= bound * theirs.grad.abs().max()


def test_gradcheck_in_fp64() -> None:
    x = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-5), (x, weight))


def test_strided_input_and_gradient() -> None:
    x = torch.randn(5, 7, 12).transpose(0, 1).requires_grad_()
    weight = torch.ones(12)
    out = rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(out, formula(x, weight))
    (grad,) = torch.autograd.grad(out.transpose(0, 1).sum(), x)
    (want,) = torch.autograd.grad(formula(x, weight).sum(), x)
    torch.testing.assert_close(grad, want)


def test_wrong_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        rms_norm(torch.zeros(3, 4), torch.ones(5), 1e-5)
