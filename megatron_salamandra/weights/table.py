"""Every kind of weight of the model, one row each.

A row says what a weight is called in Megatron-Core and in Hugging Face's Llama, which shape it has in a model,
how tensor parallelism splits it, how it is drawn, and where in the model it is. From the rows follow the
parameter count and the memory of each rank (``planning``), the initial weights (``parallel``), the check of
a checkpoint's shapes and the export (``hf``). A test compares them with the model that ``model/spec.py`` builds.

To add a kind of weight, add its row at its place in the forward pass, and its module to ``model/spec.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from megatron_salamandra.config import ModelSection

Shape = tuple[int, ...]

LAYER_STACK = "decoder.layers."
"""Prefix of layer weights in a checkpoint, where the tensors of all layers are stacked on a leading axis."""

HF_LAYER = "model.layers.{layer}."


class Part(Enum):
    """Where a weight is: what decides on which pipeline stage it lives, and how often the planner counts it."""

    EMBEDDING = "embedding"  # once, on the first stage
    LAYER = "layer"  # once per layer
    FINAL_NORM = "final norm"  # once, on the last stage
    HEAD = "head"  # once, on the last stage; a product for every token


class TensorSplit(Enum):
    """What tensor parallelism does to a weight. The value is the dimension it cuts."""

    WHOLE = None  # every tensor-parallel rank holds all of it
    ROWS = 0  # column-parallel in Megatron's words: outputs are split
    COLUMNS = 1  # row-parallel in Megatron's words: inputs are split


class Initial(Enum):
    """How a weight is drawn before training."""

    ONES = "ones"
    NORMAL = "normal"  # standard deviation init_std
    RESIDUAL = "residual"  # writes into the residual stream: init_std / sqrt(2 * layers)


class Packing(Enum):
    """How one Megatron tensor holds the Hugging Face tensors that it becomes."""

    SINGLE = "single"  # the same tensor
    QKV = "qkv"  # per query group its query heads, its key, its value
    GATE_UP = "gate_up"  # the rows of gate, then those of up


@dataclass(frozen=True)
class Weight:
    """One kind of weight.

    Args:
        name: name of the parameter in Megatron-Core, which is its key in a checkpoint; for a layer's weight without
            the number of the layer.
        huggingface: names of the tensors it becomes; ``{layer}`` stands for the number of the layer.
        shape: model -> shape of the weight (of one layer), of all tensor-parallel ranks together.
        part: where in the model it is.
        split: how tensor parallelism cuts it.
        initial: how it is drawn.
        packing: how it holds the tensors of ``huggingface``.
    """

    name: str
    huggingface: tuple[str, ...]
    shape: Callable[[ModelSection], Shape]
    part: Part
    split: TensorSplit
    initial: Initial
    packing: Packing = Packing.SINGLE

    @property
    def stacked(self) -> bool:
        """Whether every layer has one, and a checkpoint holds them in one tensor with a leading axis of layers."""
        return self.part is Part.LAYER

    @property
    def short_name(self) -> str:
        """Name for tables: the module alone."""
        return self.name.removeprefix(LAYER_STACK).removesuffix(".weight")

    @property
    def separately_split_parts(self) -> int:
        """Matrices stacked in one, of which each is split on its own. Query groups are split as whole rows."""
        return 2 if self.packing is Packing.GATE_UP else 1

    def copies(self, model: ModelSection) -> int:
        """How many of these ``model`` has."""
        return model.layers if self.stacked else 1

    def standard_deviation(self, layers: int, init_std: float) -> float:
        """Standard deviation of the normal distribution it is drawn from, in a model of ``layers`` layers."""
        return init_std / math.sqrt(2 * layers) if self.initial is Initial.RESIDUAL else init_std


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


WEIGHTS: tuple[Weight, ...] = (
    Weight(
        "embedding.word_embeddings.weight",
        ("model.embed_tokens.weight",),
        _vocabulary,
        Part.EMBEDDING,
        TensorSplit.ROWS,
        Initial.NORMAL,
    ),
    Weight(
        f"{LAYER_STACK}input_layernorm.weight",
        (f"{HF_LAYER}input_layernorm.weight",),
        _norm,
        Part.LAYER,
        TensorSplit.WHOLE,
        Initial.ONES,
    ),
    Weight(
        f"{LAYER_STACK}self_attention.linear_qkv.weight",
        tuple(f"{HF_LAYER}self_attn.{part}_proj.weight" for part in "qkv"),
        _qkv,
        Part.LAYER,
        TensorSplit.ROWS,
        Initial.NORMAL,
        Packing.QKV,
    ),
    Weight(
        f"{LAYER_STACK}self_attention.linear_proj.weight",
        (f"{HF_LAYER}self_attn.o_proj.weight",),
        _attention_output,
        Part.LAYER,
        TensorSplit.COLUMNS,
        Initial.RESIDUAL,
    ),
    Weight(
        f"{LAYER_STACK}pre_mlp_layernorm.weight",
        (f"{HF_LAYER}post_attention_layernorm.weight",),
        _norm,
        Part.LAYER,
        TensorSplit.WHOLE,
        Initial.ONES,
    ),
    Weight(
        f"{LAYER_STACK}mlp.linear_fc1.weight",
        (f"{HF_LAYER}mlp.gate_proj.weight", f"{HF_LAYER}mlp.up_proj.weight"),
        _gate_up,
        Part.LAYER,
        TensorSplit.ROWS,
        Initial.NORMAL,
        Packing.GATE_UP,
    ),
    Weight(
        f"{LAYER_STACK}mlp.linear_fc2.weight",
        (f"{HF_LAYER}mlp.down_proj.weight",),
        _down,
        Part.LAYER,
        TensorSplit.COLUMNS,
        Initial.RESIDUAL,
    ),
    Weight(
        "decoder.final_layernorm.weight",
        ("model.norm.weight",),
        _norm,
        Part.FINAL_NORM,
        TensorSplit.WHOLE,
        Initial.ONES,
    ),
    Weight(
        "output_layer.weight",
        ("lm_head.weight",),
        _vocabulary,
        Part.HEAD,
        TensorSplit.ROWS,
        Initial.NORMAL,
    ),
)
"""In the order of the forward pass."""


def weight_of(parameter: str, table: Iterable[Weight] = WEIGHTS) -> Weight:
    """The row of a parameter, given by its name in the model, such as ``decoder.layers.3.mlp.linear_fc2.weight``.

    Raises:
        ValueError: no row covers it.
    """
    name = parameter
    if parameter.startswith(LAYER_STACK):
        name = LAYER_STACK + parameter.removeprefix(LAYER_STACK).partition(".")[2]
    for weight in table:
        if weight.name == name:
            return weight
    raise ValueError(
        f"no row in the table of weights (megatron_salamandra/weights/table.py) for parameter {parameter}"
    )
