"""Which Megatron-Core tensor is which Hugging Face Llama tensor, and how one becomes the other.

One table, read in both directions. In a checkpoint the tensors of all layers are stacked on a
leading axis; the functions here work on one layer at a time. Nothing is permuted for RoPE (both
sides rotate halves) and norm weights are copied as they are (no ``1 +``).

Shape letters: V vocabulary, L layers, N hidden size, F MLP width, H query heads, G query groups,
D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_salamandra.config import ModelSection

Shape = tuple[int, ...]


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


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Args:
        megatron: key in the checkpoint.
        huggingface: names of the parts it becomes; ``{layer}`` stands for the layer number.
        shape: model -> shape of the Megatron tensor of one layer, or of the whole where not stacked.
        split: Megatron tensor -> the parts, in the order of ``huggingface``.
        join: the parts -> Megatron tensor.
    """

    megatron: str
    huggingface: tuple[str, ...]
    shape: Callable[[ModelSection], Shape]
    split: Callable[[Tensor, ModelSection], tuple[Tensor, ...]] = _whole
    join: Callable[[Sequence[Tensor], ModelSection], Tensor] = _join_rows

    @property
    def stacked(self) -> bool:
        """Whether the checkpoint holds one such tensor per layer, on a leading axis of size L."""
        return "{layer}" in self.huggingface[0]


def _vocabulary(model: ModelSection) -> Shape:
    return (model.vocab_size, model.hidden_size)


def _norm(model: ModelSection) -> Shape:
    return (model.hidden_size,)


def _qkv(model: ModelSection) -> Shape:
    return ((model.attention_heads + 2 * model.groups) * model.head_dim, model.hidden_size)


def _attention_output(model: ModelSection) -> Shape:
    return (model.hidden_size, model.attention_heads * model.head_dim)


def _gate_up(model: ModelSection) -> Shape:
    return (2 * model.ffn_hidden_size, model.hidden_size)


def _down(model: ModelSection) -> Shape:
    return (model.hidden_size, model.ffn_hidden_size)


_LAYER = "model.layers.{layer}."
_STACK = "decoder.layers."

RULES: tuple[Rule, ...] = (
    Rule("embedding.word_embeddings.weight", ("model.embed_tokens.weight",), _vocabulary),
    Rule(_STACK + "input_layernorm.weight", (_LAYER + "input_layernorm.weight",), _norm),
    Rule(
        _STACK + "self_attention.linear_qkv.weight",
        tuple(_LAYER + f"self_attn.{part}_proj.weight" for part in "qkv"),
        _qkv,
        split_qkv,
        join_qkv,
    ),
    Rule(
        _STACK + "self_attention.linear_proj.weight",
        (_LAYER + "self_attn.o_proj.weight",),
        _attention_output,
    ),
    Rule(_STACK + "pre_mlp_layernorm.weight", (_LAYER + "post_attention_layernorm.weight",), _norm),
    Rule(
        _STACK + "mlp.linear_fc1.weight",
        (_LAYER + "mlp.gate_proj.weight", _LAYER + "mlp.up_proj.weight"),
        _gate_up,
        split_gate_up,
    ),
    Rule(_STACK + "mlp.linear_fc2.weight", (_LAYER + "mlp.down_proj.weight",), _down),
    Rule("decoder.final_layernorm.weight", ("model.norm.weight",), _norm),
    Rule("output_layer.weight", ("lm_head.weight",), _vocabulary),
)


@dataclass(frozen=True)
class Placement:
    """One rule applied to one layer (``layer`` is None where the tensor is not stacked)."""

    rule: Rule
    layer: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """Hugging Face names of the parts."""
        return tuple(name.format(layer=self.layer) for name in self.rule.huggingface)

    def to_huggingface(self, tensor: Tensor, model: ModelSection) -> dict[str, Tensor]:
        """The parts of a Megatron tensor by Hugging Face name; they may share its memory."""
        return dict(zip(self.names, self.rule.split(tensor, model), strict=True))

    def from_huggingface(self, tensors: Mapping[str, Tensor], model: ModelSection) -> Tensor:
        """The Megatron tensor of this placement from a Hugging Face state dict."""
        return self.rule.join([tensors[name] for name in self.names], model)


def placements(model: ModelSection) -> Iterator[Placement]:
    """Every tensor of the model in the order in which a forward pass meets them."""
    stacked = [rule for rule in RULES if rule.stacked]
    first = RULES.index(stacked[0])
    for rule in RULES[:first]:
        yield Placement(rule, None)
    for layer in range(model.layers):
        for rule in stacked:
            yield Placement(rule, layer)
    for rule in RULES[first + len(stacked) :]:
        yield Placement(rule, None)


def megatron_shapes(model: ModelSection) -> dict[str, Shape]:
    """Key -> shape of every model tensor as a checkpoint of this model holds it."""
    return {
        rule.megatron: (model.layers, *rule.shape(model)) if rule.stacked else rule.shape(model)
        for rule in RULES
    }


def huggingface_shapes(model: ModelSection) -> dict[str, Shape]:
    """Name -> shape of every tensor of the exported model, in the order of :func:`placements`."""
    shapes: dict[str, Shape] = {}
    for placement in placements(model):
        outline = torch.empty(placement.rule.shape(model), device="meta")
        for name, part in placement.to_huggingface(outline, model).items():
            shapes[name] = tuple(part.shape)
    return shapes


def stack_from_huggingface(rule: Rule, tensors: Mapping[str, Tensor], model: ModelSection) -> Tensor:
    """The whole Megatron tensor of ``rule``, layers stacked, from a Hugging Face state dict.

    Raises:
        KeyError: a tensor is missing from ``tensors``.
    """
    if not rule.stacked:
        return Placement(rule, None).from_huggingface(tensors, model)
    return torch.stack(
        [Placement(rule, layer).from_huggingface(tensors, model) for layer in range(model.layers)]
    )
