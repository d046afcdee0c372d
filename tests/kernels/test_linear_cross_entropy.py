"""Head and loss in chunks: equal to the whole in fp64, and the bargain its forward-time gradient makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from new_tensors import NewTensors
from torch import Tensor

from salamandra_kernels import accumulate_weight_gradient, chunked_linear_cross_entropy

SEQUENCE, BATCH, HIDDEN, VOCABULARY = 8, 2, 24, 96


def case() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(VOCABULARY, (SEQUENCE, BATCH), generator=generator)
    labels[2, 1] = -100
    return {
        "hidden": torch.randn(SEQUENCE, BATCH, HIDDEN, generator=generator),
        "weight": torch.randn(VOCABULARY, HIDDEN, generator=generator) / 4,
        "labels": labels,
        "token_weights": torch.rand(SEQUENCE, BATCH, generator=generator),
    }


def exact(given: dict[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and the gradients of hidden and weight, fp64, from inputs rounded to ``dtype``."""
    hidden = given["hidden"].detach().to(dtype).double().requires_grad_()
    weight = given["weight"].detach().to(dtype).double().requires_grad_()
    logits = (hidden @ weight.T).flatten(0, 1)
    labels = given["labels"].flatten()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = (loss + 1e-2 * logits.logsumexp(-1).square() * (labels != -100)).view(SEQUENCE, BATCH)
    loss.backward(given["token_weights"].double())
    assert hidden.grad is not None and weight.grad is not None
    return loss.detach(), hidden.grad, weight.grad


def close(mine: Tensor, theirs: Tensor, bound: float) -> bool:
    return bool((mine.cpu().double() - theirs).abs().max() <= bound * theirs.abs().max())


# In bf16 the logits themselves are rounded, so the loss is only as good as they are.
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


def check(device: torch.device, dtype: torch.dtype, chunk_tokens: int) -> None:
    given = case()
    hidden = given["hidden"].to(device, dtype).requires_grad_()
    weight = given["weight"].to(device, dtype).requires_grad_()
    weights = given["token_weights"].to(device)
    loss = chunked_linear_cross_entropy(
        hidden,
        weight,
        given["labels"].to(device),
        token_weights=weights,
        z_loss=1e-2,
        chunk_tokens=chunk_tokens,
    )
    loss.backward(weights)
    assert loss.dtype == torch.float32 and hidden.grad is not None and weight.grad is not None
    for mine, theirs in zip((loss.detach(), hidden.grad, weight.grad), exact(given, dtype), strict=True):
        assert close(mine, theirs, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("chunk_tokens", [1, 5, 16, 2048])
def test_loss_and_gradients_equal_fp64(dtype: torch.dtype, chunk_tokens: int) -> None:
    check(torch.device("cpu"), dtype, chunk_tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_kernel_loss_and_gradients_equal_fp64(kernel_device: torch.device, dtype: torch.dtype) -> None:
    check(kernel_device, dtype, 5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_sharded_head_equals_the_whole_one(
    run_ranks: Callable[..., list[Any]], tmp_path: Path, ranks: int
) -> None:
    check_sharded(run_ranks, tmp_path, ranks)


def test_kernel_sharded_head_equals_the_whole_one(
    kernel_device: torch.device, run_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    if kernel_device.type != "cpu":
        pytest.skip("several ranks need several GPUs; checked in the interpreter")
    check_sharded(run_ranks, tmp_path, 2)


def check_sharded(run_ranks: Callable[..., list[Any]], tmp_path: Path, ranks: int) -> None:
    """With tensor parallelism, without and with sequence parallelism."""
    given = case()
    torch.save(given, tmp_path / "case.pt")
    results = run_ranks("linear_loss_ranks.py", ranks, str(tmp_path / "case.pt"))
    settings = itertools.product((torch.float32, torch.bfloat16), (False, True))
    for number, (dtype, sequence_parallel) in enumerate(settings):
        loss, grad_hidden, grad_weight = exact(given, dtype)
        for result in results:
            assert torch.equal(result[number][0], results[0][number][0])
            assert close(result[number][0], loss, BOUNDS[dtype])
            if not sequence_parallel:
                assert close(result[number][1], grad_hidden, BOUNDS[dtype])
        if sequence_parallel:
            parts = [result[number][1] for result in results]
            assert close(torch.cat(parts), grad_hidden, BOUNDS[dtype])
        assert close(torch.cat([result[number][2] for result in results]), grad_weight, BOUNDS[dtype])


def test_main_grad_is_added_to_and_flagged_as_megatron_core_expects() -> None:
    given = case()
    weight = torch.nn.Parameter(given["weight"].bfloat16())
    weight.main_grad = torch.ones(weight.shape)  # type: ignore[attr-defined]
    weight.grad_added_to_main_grad = False  # type: ignore[attr-defined]
    hidden = given["hidden"].bfloat16().requires_grad_()
    weights = given["token_weights"]
    for _ in range(2):
        loss = chunked_linear_cross_entropy(
            hidden, weight, given["labels"], token_weights=weights, z_loss=1e-2, chunk_tokens=6
        )
        loss.backward(weights)
    _, _, want = exact(given, torch.bfloat16)
    assert close(weight.main_grad, 1 + 2 * want, 2e-2)  # type: ignore[attr-defined]
    assert weight.grad_added_to_main_grad  # type: ignore[attr-defined]
    assert weight.grad is not None and weight.grad.shape == weight.shape


def test_without_gradients_only_the_loss_is_computed() -> None:
    given = case()
    weight = given["weight"].requires_grad_()
    weight.main_grad = torch.zeros(weight.shape)  # type: ignore[attr-defined]
    with torch.no_grad():
        loss = chunked_linear_cross_entropy(given["hidden"], weight, given["labels"], z_loss=1e-2)
    assert close(loss, exact(given, torch.float32)[0], 1e-6)
    assert not weight.main_grad.any() and not loss.requires_grad  # type: ignore[attr-defined]


def test_frozen_weight_gets_no_gradient() -> None:
    given = case()
    hidden = given["hidden"].requires_grad_()
    chunked_linear_cross_entropy(hidden, given["weight"], given["labels"]).sum().backward()
    assert hidden.grad is not None and given["weight"].grad is None


def test_a_gradient_other_than_the_token_weights_is_refused() -> None:
    given = case()
    hidden = given["hidden"].requires_grad_()
    loss = chunked_linear_cross_entropy(hidden, given["weight"], given["labels"])
    with pytest.raises(RuntimeError, match="token 0 has weight 1.0 in token_weights, .* handed back 0.5"):
        (loss.sum() / 2).backward()


def test_second_backward_is_refused() -> None:
    given = case()
    loss = chunked_linear_cross_entropy(
        given["hidden"].requires_grad_(), given["weight"], given["labels"]
    ).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        loss.backward()


def test_no_logits_of_all_tokens_exist() -> None:
    tokens, vocabulary, chunk = 64, 5000, 8
    hidden = torch.randn(tokens, 1, 4, requires_grad=True)
    weight = torch.randn(vocabulary, 4, requires_grad=True)
    labels = torch.zeros(tokens, 1, dtype=torch.int64)
    with NewTensors() as new:
        chunked_linear_cross_entropy(hidden, weight, labels, chunk_tokens=chunk).sum().backward()
    assert max(new.sizes) == chunk * vocabulary


def test_nothing_of_the_weights_size_is_made_beside_main_grad() -> None:
    tokens, vocabulary, width = 6, 500, 300
    weight = torch.nn.Parameter(torch.randn(vocabulary, width))
    weight.main_grad = torch.zeros(weight.shape)  # type: ignore[attr-defined]
    hidden = torch.randn(tokens, 1, width, requires_grad=True)
    labels = torch.zeros(tokens, 1, dtype=torch.int64)
    with NewTensors() as new:
        chunked_linear_cross_entropy(hidden, weight, labels, chunk_tokens=3).sum().backward()
    assert weight.main_grad.any() and max(new.sizes) < vocabulary * width // 10  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(3, 2, dtype=torch.int64)}, "expected labels .8, 2."),
        ({"weight": torch.zeros(VOCABULARY, 5)}, "equal hidden sizes"),
        (
            {"weight": torch.zeros(VOCABULARY, HIDDEN).bfloat16()},
            "hidden is torch.float32, weight is torch.bfloat16",
        ),
        ({"token_weights": torch.ones(3)}, "token_weights is .3,."),
        ({"labels": torch.full((SEQUENCE, BATCH), VOCABULARY)}, "label 96 is outside the vocabulary of 96"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Tensor], message: str) -> None:
    given = case() | change
    with pytest.raises(ValueError, match=message):
        chunked_linear_cross_entropy(
            given["hidden"], given["weight"], given["labels"], token_weights=given["token_weights"]
        )
    with pytest.raises(ValueError, match="chunk_tokens = 0"):
        chunked_linear_cross_entropy(*list(case().values())[:3], chunk_tokens=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_weight_gradient_is_summed_in_fp32(dtype: torch.dtype) -> None:
    grad, x = torch.randn(50, 37).to(dtype), torch.randn(50, 11).to(dtype)
    accumulator = torch.randn(37, 11)
    want = accumulator.double() + grad.double().T @ x.double()
    accumulate_weight_gradient(accumulator, grad, x)
    torch.testing.assert_close(accumulator.double(), want, atol=2e-5, rtol=1e-6)
