"""What is measured: every operation at every shape, with the bytes it has to move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from loss_peers import head_entries, loss_entries
from peers import Implementation, norm_entries, rope_entries, swiglu_entries
from shapes import HEAD_DIM, MODELS, ModelShape
from torch import Tensor

OPERATIONS = ("rope", "swiglu", "norm", "loss", "head")
DTYPE = torch.bfloat16
BYTES = DTYPE.itemsize


@dataclasses.dataclass(frozen=True)
class Task:
    """One operation at one shape."""

    operation: str
    shape: str
    inputs: Callable[[], tuple[Tensor, ...]]
    """Makes the inputs; the first gets a gradient and may be overwritten, the others (labels) neither."""

    implementations: dict[str, Implementation]
    parameters: tuple[torch.nn.Parameter, ...] = ()
    """Weights that get a gradient too: into ``main_grad`` where they have one."""

    forward_bytes: int = 0
    backward_bytes: int = 0
    """What the operation has to move; 0: it is a matrix product, and bytes are not its measure."""

    is_loss: bool = False
    """The output is a loss for each token or their sum, and the upstream gradient is 1."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which of the tasks to run."""

    operations: Sequence[str]
    models: Sequence[str]
    tensor_parallel: Sequence[int]
    sequence: int
    vocabulary: int
    device: torch.device


def tasks(wanted: Selection) -> Iterator[Task]:
    """The tasks of a selection, small models first."""
    if "loss" in wanted.operations:
        for tp in wanted.tensor_parallel:
            yield _loss(wanted, wanted.vocabulary // tp, f"{wanted.vocabulary:,} tp{tp}")
    for name in wanted.models:
        model = MODELS[name]
        if "norm" in wanted.operations:
            yield _norm(wanted, model, name)
        for tp in wanted.tensor_parallel:
            shape = f"{name} tp{tp}"
            if "rope" in wanted.operations:
                yield _rope(wanted, model, model.query_groups // tp, shape)
            if "swiglu" in wanted.operations:
                yield _swiglu(wanted, model.ffn // tp, shape)
            if "head" in wanted.operations:
                yield _head(wanted, model, wanted.vocabulary // tp, shape)


def _random(wanted: Selection, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=DTYPE, device=wanted.device)


def _labels(wanted: Selection, vocabulary: int) -> Tensor:
    return torch.randint(vocabulary, (wanted.sequence, 1), device=wanted.device)


def _rope(wanted: Selection, model: ModelShape, groups: int, shape: str) -> Task:
    width = groups * (model.q_per_group + 2) * HEAD_DIM
    rotated = wanted.sequence * groups * (model.q_per_group + 1) * HEAD_DIM
    return Task(
        "rope",
        shape,
        lambda: (_random(wanted, wanted.sequence, 1, groups, width // groups),),
        rope_entries(groups, model.q_per_group, HEAD_DIM, wanted.sequence, wanted.device),
        forward_bytes=2 * BYTES * rotated,
        backward_bytes=2 * BYTES * wanted.sequence * width,
    )


def _swiglu(wanted: Selection, columns: int, shape: str) -> Task:
    return Task(
        "swiglu",
        shape,
        lambda: (_random(wanted, wanted.sequence, 2 * columns),),
        swiglu_entries(),
        forward_bytes=3 * BYTES * wanted.sequence * columns,
        backward_bytes=5 * BYTES * wanted.sequence * columns,
    )


def _norm(wanted: Selection, model: ModelShape, shape: str) -> Task:
    weight = torch.nn.Parameter(_random(wanted, model.hidden))
    return Task(
        "norm",
        shape,
        lambda: (_random(wanted, wanted.sequence, model.hidden),),
        norm_entries(weight),
        parameters=(weight,),
        forward_bytes=2 * BYTES * wanted.sequence * model.hidden,
        backward_bytes=3 * BYTES * wanted.sequence * model.hidden,
    )


def _loss(wanted: Selection, vocabulary: int, shape: str) -> Task:
    return Task(
        "loss",
        shape,
        lambda: (_random(wanted, wanted.sequence, 1, vocabulary), _labels(wanted, vocabulary)),
        loss_entries(),
        forward_bytes=BYTES * wanted.sequence * vocabulary,
        backward_bytes=2 * BYTES * wanted.sequence * vocabulary,
        is_loss=True,
    )


def _head(wanted: Selection, model: ModelShape, vocabulary: int, shape: str) -> Task:
    weight = torch.nn.Parameter(_random(wanted, vocabulary, model.hidden).mul_(0.02))
    weight.main_grad = torch.zeros(weight.shape, device=wanted.device)
    weight.grad_added_to_main_grad = False
    return Task(
        "head",
        shape,
        lambda: (
            _random(wanted, wanted.sequence, 1, model.hidden),
            _labels(wanted, vocabulary),
        ),
        head_entries(weight),
        parameters=(weight,),
        is_loss=True,
    )
