"""The loss over a large, sharded vocabulary: against fp64, and the contract of its overwriting backward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from salamandra_kernels import vocab_parallel_cross_entropy


def exact_loss(logits: Tensor, labels: Tensor, z_loss: float) -> Tensor:
    """fp64 loss per token by torch's own functions."""
    flat = logits.double().flatten(0, -2)
    loss = torch.nn.functional.cross_entropy(flat, labels.flatten(), reduction="none")
    partition = flat.logsumexp(-1).square() * (labels.flatten() != -100)
    return (loss + z_loss * partition).view(labels.shape)


def case(width: int, sequence: int = 5, batch: int = 2, scale: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels with ignored tokens, weights per token."""
    generator = torch.Generator().manual_seed(width)
    logits = torch.randn(sequence, batch, width, generator=generator) * scale
    labels = torch.randint(width, (sequence, batch), generator=generator)
    labels[0, 0] = -100
    labels[-1, -1] = width - 1
    return logits, labels, torch.rand(sequence, batch, generator=generator)


def check(
    device: torch.device, dtype: torch.dtype, bound: float, width: int, z_loss: float, sequence: int
) -> None:
    logits, labels, weights = case(width, sequence)
    logits = logits.to(dtype)
    exact = logits.double().requires_grad_()
    want = exact_loss(exact, labels, z_loss)
    want.backward(weights.double())
    leaf = logits.to(device).requires_grad_()
    got = vocab_parallel_cross_entropy(leaf * 1, labels.to(device), z_loss=z_loss)
    got.backward(weights.to(device))
    assert leaf.grad is not None and exact.grad is not None
    assert got.dtype == torch.float32 and got[0, 0] == 0
    # The loss is fp32 from rounded logits whatever their type; only the gradient is rounded.
    assert (got.detach().cpu() - want.detach()).abs().max() <= 1e-6 * want.abs().max()
    assert (leaf.grad.cpu().double() - exact.grad).abs().max() <= bound * exact.grad.abs().max()
    assert not leaf.grad[0, 0].any()


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("width", [1, 77, 4099])
def test_loss_and_gradient_equal_fp64(width: int, z_loss: float) -> None:
    check(torch.device("cpu"), torch.float32, 1e-6, width, z_loss, 5)
    check(torch.device("cpu"), torch.bfloat16, 2**-8, width, z_loss, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize(("width", "sequence"), [(77, 5), (4099, 5), (256_000, 2)])
def test_kernel_loss_and_gradient_equal_fp64(
    kernel_device: torch.device,
    rounding: dict[torch.dtype, float],
    width: int,
    sequence: int,
    z_loss: float,
    dtype: torch.dtype,
) -> None:
    check(kernel_device, dtype, rounding[dtype], width, z_loss, sequence)


def test_true_class_gradient_survives_confident_predictions() -> None:
    check_confident(torch.device("cpu"), 2**-8)


def test_kernel_true_class_gradient_survives_confident_predictions(
    kernel_device: torch.device, rounding: dict[torch.dtype, float]
) -> None:
    check_confident(kernel_device, rounding[torch.bfloat16])


def check_confident(device: torch.device, bound: float) -> None:
    """With p = 0.999, rounding p to bf16 before subtracting 1 would leave no gradient at all."""
    for probability in (0.5, 0.9, 0.99, 0.999):
        logits = torch.zeros(1, 1, 33)
        logits[..., 3] = torch.tensor(probability / (1 - probability) * 32).log()
        rounded = logits.bfloat16()
        want = rounded.double().softmax(-1)[..., 3] - 1
        leaf = rounded.to(device).requires_grad_()
        vocab_parallel_cross_entropy(leaf * 1, torch.tensor([[3]], device=device)).sum().backward()
        assert leaf.grad is not None
        assert abs(float(leaf.grad[0, 0, 3]) / float(want) - 1) <= bound


@pytest.mark.parametrize("ranks", [2, 4])
def test_sharded_vocabulary_equals_the_whole_one(
    run_ranks: Callable[..., list[Any]], tmp_path: Path, ranks: int
) -> None:
    check_sharded(run_ranks, tmp_path, ranks, {torch.float32: 1e-6, torch.bfloat16: 2**-8})


@pytest.mark.parametrize("ranks", [2, 4])
def test_kernel_sharded_vocabulary_equals_the_whole_one(
    kernel_device: torch.device,
    rounding: dict[torch.dtype, float],
    run_ranks: Callable[..., list[Any]],
    tmp_path: Path,
    ranks: int,
) -> None:
    if kernel_device.type != "cpu":
        pytest.skip("several ranks need several GPUs; checked in the interpreter")
    check_sharded(run_ranks, tmp_path, ranks, rounding)


def check_sharded(
    run_ranks: Callable[..., list[Any]], tmp_path: Path, ranks: int, bounds: dict[torch.dtype, float]
) -> None:
    logits, labels, weights = case(4096)
    given = {"logits": logits, "labels": labels, "upstream": weights, "z_loss": 1e-2}
    torch.save(given, tmp_path / "case.pt")
    results = run_ranks("loss_ranks.py", ranks, str(tmp_path / "case.pt"))
    for number, (dtype, bound) in enumerate(bounds.items()):
        exact = logits.to(dtype).double().requires_grad_()
        want = exact_loss(exact, labels, 1e-2)
        want.backward(weights.double())
        assert exact.grad is not None
        losses = [result[number][0] for result in results]
        assert all(torch.equal(loss, losses[0]) for loss in losses)
        assert (losses[0] - want.detach()).abs().max() <= 1e-6 * want.abs().max()
        grad = torch.cat([result[number][1] for result in results], -1)
        assert (grad.double() - exact.grad).abs().max() <= bound * exact.grad.abs().max()


def test_gradient_takes_the_logits_buffer() -> None:
    logits, labels, _ = case(50)
    hidden = logits.clone().requires_grad_() * 1
    seen: list[int] = []
    hidden.register_hook(lambda grad: seen.append(grad.data_ptr()))
    vocab_parallel_cross_entropy(hidden, labels).sum().backward()
    assert seen == [hidden.data_ptr()]


def test_second_backward_is_refused() -> None:
    logits, labels, _ = case(50)
    loss = vocab_parallel_cross_entropy(logits.requires_grad_() * 1, labels).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        loss.backward()


def test_using_the_logits_elsewhere_is_noticed() -> None:
    check_use_elsewhere(torch.device("cpu"))


def test_kernel_using_the_logits_elsewhere_is_noticed(kernel_device: torch.device) -> None:
    check_use_elsewhere(kernel_device)


def check_use_elsewhere(device: torch.device) -> None:
    """A second graph that saved the logits must not silently see the gradient in them."""
    logits, labels, _ = case(50)
    hidden = logits.to(device).requires_grad_() * 1
    other = hidden.square().sum()
    vocab_parallel_cross_entropy(hidden, labels.to(device)).sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_reaches_the_loss(value: float) -> None:
    check_bad_logit(torch.device("cpu"), value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_kernel_logit_that_is_no_number_reaches_the_loss(kernel_device: torch.device, value: float) -> None:
    check_bad_logit(kernel_device, value)


def check_bad_logit(device: torch.device, value: float) -> None:
    """Also where it is not the label's: a loss that looks sound would hide a model that is not."""
    logits, labels, _ = case(50)
    labels[1, 0], logits[1, 0, 7] = 3, value
    loss = vocab_parallel_cross_entropy(logits.to(device), labels.to(device)).cpu()
    assert not loss[1, 0].isfinite()
    assert loss.flatten()[torch.arange(loss.numel()) != 2].isfinite().all()


@pytest.mark.parametrize("ids", [[7, -100], [7, 50], [7, -1]])
def test_labels_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    logits = torch.zeros(2, 1, 50)
    labels = torch.tensor(ids).view(2, 1)
    if ids[1] == -100:
        vocab_parallel_cross_entropy(logits, labels)
        return
    with pytest.raises(ValueError, match=f"label {ids[1]} is outside the vocabulary of 50"):
        vocab_parallel_cross_entropy(logits, labels)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="disagree"):
        vocab_parallel_cross_entropy(torch.zeros(2, 3, 5), torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="not contiguous"):
        vocab_parallel_cross_entropy(
            torch.zeros(2, 5, 3).transpose(1, 2), torch.zeros(2, 3, dtype=torch.int64)
        )
