"""How a Megatron-Core tensor becomes Hugging Face Llama tensors, and back.

Names come from :mod:`megatron_salamandra.weights`. In a checkpoint the tensors of all layers are stacked on a
leading axis; the functions here work on one layer at a time. Nothing is permuted for RoPE (both
sides rotate halves) and norm weights are copied as they are (no ``1 +``).

Shape letters: V vocabulary, L layers, N hidden size, F MLP width, H query heads, G query groups,
D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from megatron_salamandra.config import ModelSection
from megatron_salamandra.weights import WEIGHTS, Packing, Shape, Weight


def split_qkv(qkv: Tensor, model: ModelSection) -> tuple[Tensor, Tensor, Tensor]:
    """Undo Megatron's interleaving of query, key and value rows.

    Args:
        qkv: [G * (H/G + 2) * D, N]; per query group its H/G query heads, then its key, then its value.
    Returns:
        query [H * D, N], key [G * D, N], value [G * D, N].
    """
    grouped = qkv.reshape(model.groups, -1, model.head_dim, qkv.shape[-1])
    heads_per_group = model.attention_heads // model.groups
    query, key, value = grouped.split([heads_per_group, 1, 1], dim=1)
    return (
        query.reshape(-1, qkv.shape[-1]),
        key.reshape(-1, qkv.shape[-1]),
        value.reshape(-1, qkv.shape[-1]),
    )


def join_qkv(parts: Sequence[Tensor], model: ModelSection) -> Tensor:
    """Inverse of :func:`split_qkv`."""
    grouped = [part.reshape(model.groups, -1, model.head_dim, part.shape[-1]) for part in parts]
    return torch.cat(grouped, dim=1).reshape(-1, parts[0].shape[-1])


def split_gate_up(gate_up: Tensor, model: ModelSection) -> tuple[Tensor, Tensor]:
    """[2F, N], gate rows first, to gate [F, N] and up [F, N]."""
    gate, up = gate_up.split(model.ffn_hidden_size, dim=0)
    return gate, up


def _join_rows(parts: Sequence[Tensor], model: ModelSection) -> Tensor:
    return torch.cat(list(parts), dim=0)


def _whole(tensor: Tensor, model: ModelSection) -> tuple[Tensor, ...]:
    return (tensor,)


_SPLIT: dict[Packing, Callable[[Tensor, ModelSection], tuple[Tensor, ...]]] = {
    Packing.SINGLE: _whole,
    Packing.QKV: split_qkv,
    Packing.GATE_UP: split_gate_up,
}
_JOIN: dict[Packing, Callable[[Sequence[Tensor], ModelSection], Tensor]] = {
    Packing.SINGLE: _join_rows,
    Packing.QKV: join_qkv,
    Packing.GATE_UP: _join_rows,
}


@dataclass(frozen=True)
class Placement:
    """One row of the table in one layer (``layer`` is None where the tensor is not stacked)."""

    weight: Weight
    layer: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """Hugging Face names of the parts."""
        return tuple(name.format(layer=self.layer) for name in self.weight.huggingface)

    def to_huggingface(self, tensor: Tensor, model: ModelSection) -> dict[str, Tensor]:
        """The parts of a Megatron tensor by Hugging Face name; they may share its memory."""
        return dict(zip(self.names, _SPLIT[self.weight.packing](tensor, model), strict=True))

    def from_huggingface(self, tensors: Mapping[str, Tensor], model: ModelSection) -> Tensor:
        """The Megatron tensor of this placement from a Hugging Face state dict."""
        return _JOIN[self.weight.packing]([tensors[name] for name in self.names], model)


def placements(model: ModelSection) -> Iterator[Placement]:
    """Every tensor of the model in the order in which a forward pass meets them."""
    for stacked, group in groupby(WEIGHTS, key=lambda weight: weight.stacked):
        weights = list(group)
        for layer in range(model.layers) if stacked else (None,):
            for weight in weights:
                yield Placement(weight, layer)


def megatron_shapes(model: ModelSection) -> dict[str, Shape]:
    """Key -> shape of every model tensor as a checkpoint of this model holds it."""
    return {
        weight.name: (model.layers, *weight.shape(model)) if weight.stacked else weight.shape(model)
        for weight in WEIGHTS
    }


def huggingface_shapes(model: ModelSection) -> dict[str, Shape]:
    """Name -> shape of every tensor of the exported model, in the order of :func:`placements`."""
    shapes: dict[str, Shape] = {}
    for placement in placements(model):
        outline = torch.empty(placement.weight.shape(model), device="meta")
        for name, part in placement.to_huggingface(outline, model).items():
            shapes[name] = tuple(part.shape)
    return shapes


def stack_from_huggingface(weight: Weight, tensors: Mapping[str, Tensor], model: ModelSection) -> Tensor:
    """The whole Megatron tensor of ``weight``, layers stacked, from a Hugging Face state dict.

    Raises:
        KeyError: a tensor is missing from ``tensors``.
    """
    if not weight.stacked:
        return Placement(weight, None).from_huggingface(tensors, model)
    return torch.stack(
        [Placement(weight, layer).from_huggingface(tensors, model) for layer in range(model.layers)]
    )
