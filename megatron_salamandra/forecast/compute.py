"""Seconds of a layer and of the head for one micro-batch on one rank, by what they are spent on.

A product of an m by k with a k by n matrix takes ``2 m n k`` FLOPs at the rate that large products reach, and its
operands and result once through memory: small products are slower by that second part. Other kernels take their bytes
through memory. Backward of a product is two products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.forecast.rates import Rates
from megatron_salamandra.forecast.workload import Workload

# Bytes through memory over those of one fused kernel. Plain PyTorch normalises in fp32 with one kernel for each of
# cast, square, mean, scale, gain and cast: some 40 bytes an element in place of 4 or 5. It rotates by casts and complex
# products: 24 in place of 4.
_EAGER_NORM, _EAGER_ROTARY = 8, 6
# An activation of its own kernel (and a product of its own kernel where the MLP is gated).
_SEPARATE_ACTIVATION = (1.7, 1.5)
# Passes over the features of the MLP: read gate and up, write their product; backward reads three and writes two.
_GATED_PASSES, _PLAIN_PASSES = (3, 5), (2, 3)
# Casting to fp8 reads two bytes and writes one.
_CAST_BYTES = 3
_BACKWARD_ATTENTION = 2.5
"""FLOPs of attention backward over forward: scores are computed again, and five products stand against two."""


@dataclass(frozen=True)
class LayerSeconds:
    """One layer and micro-batch, forward and backward together unless it says otherwise.

    Attributes:
        recompute: of what backward computes again; part of ``backward``.
        tensor: communication between tensor-parallel ranks that nothing overlaps.
        context: the same between context-parallel ranks, and attention's loss by being cut.
        forward: the whole forward pass.
        backward: the whole backward pass.
    """

    matrices: float
    attention: float
    elementwise: float
    recompute: float
    tensor: float
    context: float
    forward: float
    backward: float


def layer_seconds(work: Workload, machine: Machine, rates: Rates) -> LayerSeconds:
    """Time of one layer for one micro-batch."""
    clock = _clock(machine, rates)
    tokens = work.micro_batch * work.sequence / work.context
    memory = machine.memory_gb_s * 1e9 * rates.memory_share

    matrices = sum(_product(tokens, k, n, work, machine, rates) for k, n in _matrices(work))
    forward_rate, backward_rate = rates.attention_flops(work.software.attention, machine.bf16_teraflops)
    flops = 2 * tokens * work.sequence * work.shape.query / work.tensor  # causal: half of 4
    attention = (
        flops / (forward_rate * clock),
        _BACKWARD_ATTENTION * flops / (backward_rate * clock),
    )
    kernels = {name: bytes_ / memory for name, bytes_ in _forward_bytes(work, tokens).items()}
    elementwise = sum(kernels.values()), _backward_bytes(work, tokens) / memory
    again = work.software.recompute
    recompute = again.matrices * matrices + again.attention * attention[0]
    recompute += sum(getattr(again, name) * seconds for name, seconds in kernels.items())
    tensor = _tensor_seconds(work, machine, rates, tokens)
    context = _context_seconds(work, machine, rates, tokens, attention)
    return LayerSeconds(
        matrices=3 * matrices,
        attention=sum(attention),
        elementwise=sum(elementwise),
        recompute=recompute,
        tensor=sum(tensor),
        context=sum(context),
        forward=matrices + attention[0] + elementwise[0] + tensor[0] + context[0],
        backward=2 * matrices + attention[1] + elementwise[1] + recompute + tensor[1] + context[1],
    )


def head_seconds(work: Workload, machine: Machine, rates: Rates) -> tuple[float, float]:
    """Time of head and loss for one micro-batch, forward and backward; in bf16 always."""
    tokens = work.micro_batch * work.sequence / work.context
    memory = machine.memory_gb_s * 1e9 * rates.memory_share
    rows = work.shape.vocabulary / work.tensor
    clock = _clock(machine, rates)
    rate = machine.bf16_teraflops * 1e12 * rates.matrix_share * clock
    flops = 2 * tokens * work.shape.hidden * rows / rate
    operands = 2 * (tokens * work.shape.hidden + work.shape.hidden * rows + tokens * rows) / memory
    loss = work.software.loss_bytes * tokens * rows / memory
    sweeps = work.software.loss_passes * 8 * work.shape.hidden * rows / memory
    product = flops + operands
    return product + loss / 3, 2 * product + loss * 2 / 3 + sweeps


def _matrices(work: Workload) -> Iterator[tuple[float, float]]:
    """Inner size and columns of the four products of a layer on one rank."""
    shape, tensor = work.shape, work.tensor
    yield shape.hidden, (shape.query + 2 * shape.key) / tensor
    yield shape.query / tensor, shape.hidden
    yield shape.hidden, shape.ffn * (shape.mlp_matrices - 1) / tensor
    yield shape.ffn / tensor, shape.hidden


def _product(
    tokens: float, inner: float, columns: float, work: Workload, machine: Machine, rates: Rates
) -> float:
    clock = _clock(machine, rates)
    rate, element = machine.bf16_teraflops * rates.matrix_share, 2
    if work.software.fp8:
        assert machine.fp8_teraflops is not None, machine.gpu  # the caller asked for what there is
        rate, element = machine.fp8_teraflops * rates.fp8_share, 1
    moved = element * (tokens * inner + inner * columns) + 2 * tokens * columns
    memory = machine.memory_gb_s * 1e9 * rates.memory_share
    return 2 * tokens * inner * columns / (rate * 1e12 * clock) + moved / memory


def _forward_bytes(work: Workload, tokens: float) -> dict[str, float]:
    """Bytes that norms, the activation and the other kernels of a layer move in its forward pass."""
    shape, style = work.shape, work.software.elementwise
    norm, rotary = (_EAGER_NORM, _EAGER_ROTARY) if style == "eager" else (1, 1)
    separate = 1.0 if style == "fused" else _SEPARATE_ACTIVATION[0]
    passes = (_GATED_PASSES if shape.mlp_matrices == 3 else _PLAIN_PASSES)[0]
    residual = _residual(work, tokens)
    others = 2 * (6 * residual + rotary * 2 * _rotated(work, tokens))
    if work.software.fp8:
        inputs = 2 * shape.hidden + (shape.query + shape.ffn) / work.tensor
        others += _CAST_BYTES * tokens * inputs
    return {
        "norms": 2 * norm * 4 * residual,
        "activation": 2 * separate * passes * tokens * shape.ffn / work.tensor,
        "others": others,
    }


def _backward_bytes(work: Workload, tokens: float) -> float:
    """Bytes that all of them move in the backward pass."""
    shape, style = work.shape, work.software.elementwise
    norm, rotary = (_EAGER_NORM, _EAGER_ROTARY) if style == "eager" else (1, 1)
    separate = 1.0 if style == "fused" else _SEPARATE_ACTIVATION[1]
    passes = (_GATED_PASSES if shape.mlp_matrices == 3 else _PLAIN_PASSES)[1]
    residual = _residual(work, tokens)
    activation = separate * passes * tokens * shape.ffn / work.tensor
    moved = 2 * (norm * 6 * residual + 6 * residual + rotary * 2 * _rotated(work, tokens) + activation)
    if work.software.fp8:
        packed = shape.query + 2 * shape.key + shape.ffn * (shape.mlp_matrices - 1)
        moved += _CAST_BYTES * tokens * (2 * shape.hidden + packed / work.tensor)
    return moved


def _residual(work: Workload, tokens: float) -> float:
    return tokens * work.shape.hidden / (work.tensor if work.split_residual else 1)


def _rotated(work: Workload, tokens: float) -> float:
    shape = work.shape
    return tokens * (shape.query + shape.key) / work.tensor if shape.rotary else 0.0


def _tensor_seconds(work: Workload, machine: Machine, rates: Rates, tokens: float) -> tuple[float, float]:
    """Exposed collectives: two gathers and two reductions forward, as many backward, and two gathers for the weight
    products there."""
    if work.tensor == 1:
        return 0.0, 0.0
    nodes = -(-work.tensor // machine.gpus_per_node)
    rate = machine.group_gb_s(
        min(work.tensor, machine.gpus_per_node), nodes, rates.link_share, rates.network_share
    )
    one = (work.tensor - 1) / work.tensor * tokens * work.shape.hidden * 2 / (rate * 1e9)
    left = rates.tensor_overlap_left
    forward, backward = {"none": (4.0, 6.0), "backward": (4.0, 3.0), "all": (4 * left, 6 * left)}[
        work.software.tensor_overlap
    ]
    again = work.software.recompute.matrices if work.software.recompute.matrices == 1 else 0.0
    return forward * one, (backward + again * forward) * one


def _context_seconds(
    work: Workload, machine: Machine, rates: Rates, tokens: float, attention: tuple[float, float]
) -> tuple[float, float]:
    """What cutting attention along the sequence adds: keys and values pass round, mostly behind the computation."""
    if work.context == 1:
        return 0.0, 0.0
    ranks = work.context * work.tensor
    nodes = -(-ranks // machine.gpus_per_node)
    rate = machine.group_gb_s(
        min(work.context, max(1, machine.gpus_per_node // work.tensor)),
        nodes,
        rates.link_share,
        rates.network_share,
    )
    passed = (work.context - 1) * tokens * 2 * work.shape.key * 2 / work.tensor / (rate * 1e9)
    forward = max(0.0, passed - attention[0]) + rates.context_cost * attention[0]
    return forward, max(0.0, 2 * passed - attention[1]) + rates.context_cost * attention[1]


def _clock(machine: Machine, rates: Rates) -> float:
    """Share of the full clock that the power limit leaves."""
    return float(machine.power_share**rates.power_exponent)
