"""SwiGLU: against fp64, at the widths of the published models, and the overwriting backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from salamandra_kernels import swiglu


def check(device: torch.device, dtype: torch.dtype, bound: float, width: int, overwrite: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(3, 2, 2 * width, generator=generator).to(dtype)
    upstream = torch.randn(3, 2, width, generator=generator).to(dtype)
    exact = values.double().requires_grad_()
    gate, up = exact.chunk(2, -1)
    want = torch.nn.functional.silu(gate) * up
    want.backward(upstream.double())
    leaf = values.to(device).requires_grad_()
    got = swiglu(leaf * 1, overwrite_input=overwrite)
    got.backward(upstream.to(device))
    assert leaf.grad is not None and exact.grad is not None
    assert got.dtype == dtype
    for mine, theirs in ((got.detach(), want.detach()), (leaf.grad, exact.grad)):
        assert (mine.cpu().double() - theirs).abs().max() <= bound * theirs.abs().max()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("width", [1, 37, 5440])
def test_value_and_gradient_equal_fp64(width: int, overwrite: bool) -> None:
    check(torch.device("cpu"), torch.float32, 1e-6, width, overwrite)
    check(torch.device("cpu"), torch.bfloat16, 2**-8, width, overwrite)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("width", [37, 5440, 11008, 24576])
def test_kernel_value_and_gradient_equal_fp64(
    kernel_device: torch.device,
    rounding: dict[torch.dtype, float],
    width: int,
    overwrite: bool,
    dtype: torch.dtype,
) -> None:
    check(kernel_device, dtype, rounding[dtype], width, overwrite)


@pytest.mark.usefixtures("poisoned_memory")
def test_kernel_fills_every_element(kernel_device: torch.device) -> None:
    assert torch.empty(3, device=kernel_device).isnan().all()
    leaf = torch.randn(3, 2 * 1500, device=kernel_device, requires_grad=True)
    out = swiglu(leaf)
    (grad,) = torch.autograd.grad(out.sum(), leaf)
    assert not out.isnan().any() and not grad.isnan().any()


def test_gradcheck_in_fp64() -> None:
    assert torch.autograd.gradcheck(swiglu, torch.randn(3, 10, dtype=torch.float64, requires_grad=True))


def test_only_the_input_is_saved() -> None:
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    values = torch.randn(4, 10, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        swiglu(values)
    assert [tensor.data_ptr() for tensor in saved] == [values.data_ptr()]


def test_overwriting_reuses_the_input_and_refuses_a_second_backward() -> None:
    values = torch.randn(4, 10)
    buffer = values.clone()
    leaf = values.clone().requires_grad_()
    hidden = leaf * 1
    out = swiglu(hidden, overwrite_input=True)
    seen: list[int] = []
    hidden.register_hook(lambda grad: seen.append(grad.data_ptr()))
    out.sum().backward(retain_graph=True)
    assert seen == [hidden.data_ptr()]
    with pytest.raises(RuntimeError, match="second backward"):
        out.sum().backward()
    assert torch.equal(values, buffer)


def test_kernel_overwriting_a_saved_input_is_noticed(kernel_device: torch.device) -> None:
    hidden = torch.randn(4, 10, device=kernel_device, requires_grad=True) * 1
    other = hidden.square().sum()
    swiglu(hidden, overwrite_input=True).sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


def test_plain_backward_may_run_twice() -> None:
    leaf = torch.randn(4, 10, requires_grad=True)
    out = swiglu(leaf)
    out.sum().backward(retain_graph=True)
    first = leaf.grad.clone() if leaf.grad is not None else None
    out.sum().backward()
    assert first is not None and leaf.grad is not None and torch.equal(leaf.grad, 2 * first)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="two equal halves"):
        swiglu(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="not contiguous"):
        swiglu(torch.zeros(8, 2).T)
