"""Embedding: equal to torch's, sharded or not, with the gradient added where Megatron-Core wants it."""

from __future__ import annotations

import pytest
import torch
from new_tensors import NewTensors
from torch import Tensor

from salamandra_kernels import embedding

VOCABULARY, HIDDEN = 40, 6


def case() -> tuple[Tensor, Tensor, Tensor]:
    """Ids with repetitions, weight, gradient."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(VOCABULARY, (4, 30), generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return ids, weight, torch.randn(4, 30, HIDDEN, generator=generator)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_parts_of_the_vocabulary_sum_to_the_whole(ranks: int) -> None:
    ids, weight, upstream = case()
    whole = weight.clone().requires_grad_()
    want = torch.nn.functional.embedding(ids, whole)
    want.backward(upstream)
    parts = [part.clone().requires_grad_() for part in weight.chunk(ranks)]
    size = VOCABULARY // ranks
    outputs = [embedding(ids, part, vocab_start=rank * size) for rank, part in enumerate(parts)]
    for output in outputs:
        output.backward(upstream)
    assert torch.equal(sum(outputs), want)
    assert whole.grad is not None
    torch.testing.assert_close(torch.cat([part.grad for part in parts if part.grad is not None]), whole.grad)


def test_main_grad_is_added_to_and_flagged_as_megatron_core_expects() -> None:
    ids, weight, upstream = case()
    parameter = torch.nn.Parameter(weight.bfloat16())
    parameter.main_grad = torch.ones(weight.shape)  # type: ignore[attr-defined]
    parameter.grad_added_to_main_grad = False  # type: ignore[attr-defined]
    embedding(ids, parameter).backward(upstream.bfloat16())
    want = torch.ones(weight.shape).index_add(0, ids.flatten(), upstream.bfloat16().float().flatten(0, 1))
    torch.testing.assert_close(parameter.main_grad, want)  # type: ignore[attr-defined]
    assert parameter.grad_added_to_main_grad and parameter.grad is not None  # type: ignore[attr-defined]


def test_nothing_of_the_weights_size_is_made_beside_main_grad() -> None:
    weight = torch.nn.Parameter(torch.randn(5000, HIDDEN))
    weight.main_grad = torch.zeros(weight.shape)  # type: ignore[attr-defined]
    ids = torch.arange(20)
    with NewTensors() as new:
        embedding(ids, weight).sum().backward()
    assert weight.main_grad.any() and max(new.sizes) <= ids.numel() * HIDDEN  # type: ignore[attr-defined]


def test_ids_of_other_ranks_do_not_crowd_one_row() -> None:
    """On CUDA, additions to one row wait for each other, also those of zeros."""
    ids = torch.arange(1000)
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    weight = torch.randn(100, HIDDEN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embedding(ids, weight, vocab_start=300)
    rows = next(tensor for tensor in saved if tensor.dtype == torch.int64)
    assert torch.bincount(rows).max() == 10
    assert torch.equal(rows[300:400], torch.arange(100))


def test_gradcheck_in_fp64() -> None:
    ids, weight, _ = case()
    assert torch.autograd.gradcheck(lambda w: embedding(ids[:1, :5], w), weight.double().requires_grad_())
