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


def check(device: torch.device, dtype: torch.dtype, bound: float, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    x, weight, upstream = (
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in ((5, 3, width), (width,), (5, 3, width))
    )
    exact = [x.double().requires_grad_(), weight.double().requires_grad_()]
    want = formula(*exact)
    want.backward(upstream.double())
    mine = [x.to(device).requires_grad_(), weight.to(device).requires_grad_()]
    got = rms_norm(mine[0], mine[1], 1e-5)
    got.backward(upstream.to(device))
    pairs = [(got.detach(), want.detach())]
    pairs += [(a.grad, b.grad) for a, b in zip(mine, exact, strict=True) if a.grad is not None]
    assert len(pairs) == 3
    for ours, theirs in pairs:
        assert (ours.cpu().double() - theirs).abs().max() <= bound * theirs.abs().max()


# Two roundings to bf16 in forward, as Hugging Face has it.
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 2**-7}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_value_and_gradients_equal_fp64(dtype: torch.dtype) -> None:
    check(torch.device("cpu"), dtype, BOUNDS[dtype], 96)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("width", [96, 2048, 8192])
def test_kernel_value_and_gradients_equal_fp64(
    kernel_device: torch.device, rounding: dict[torch.dtype, float], width: int, dtype: torch.dtype
) -> None:
    check(kernel_device, dtype, 2 * rounding[dtype], width)


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
