"""Initial weights that are the same in every layout.

A weight's values depend on the seed, its global name and its global position only: the matrix
is cut along the dimension that tensor parallelism splits into blocks of about a million
numbers, and every block has its own generator. A rank draws the blocks that touch its shard
and nothing else, so that the 40B starts as fast as its shard can be filled.

Which weight is split how and drawn from which distribution is in :mod:`megatron_salamandra.weights`: as in the
published configurations ``init_std`` everywhere, divided by sqrt(2 x layers) for the two projections that write
to the residual stream; norms are 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, nn

from megatron_salamandra.weights import Initial, TensorSplit, Weight, weight_of

BLOCK_NUMEL = 1 << 20


def _generator(seed: int, name: str, block: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}/{block}".encode(), digest_size=8).digest()
    generator = torch.Generator()
    # Generators take 64 bits; one is dropped because negative seeds are refused on some builds.
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator


def draw_rows(seed: int, name: str, first: int, count: int, width: int) -> Tensor:
    """Rows ``first .. first+count`` of the standard-normal matrix ``name``: [count, width] fp32."""
    rows_per_block = max(1, BLOCK_NUMEL // width)
    rows = torch.empty(count, width)
    position = first
    while position < first + count:
        block = position // rows_per_block
        start = block * rows_per_block
        drawn = torch.empty(rows_per_block, width).normal_(generator=_generator(seed, name, block))
        stop = min(first + count, start + rows_per_block)
        rows[position - first : stop - first] = drawn[position - start : stop - start]
        position = stop
    return rows


def _fill(shard: Tensor, weight: Weight, name: str, std: float, seed: int, rank: int, size: int) -> None:
    """Fill the shard of rank ``rank`` of ``size`` of the matrix with the global name ``name``."""
    view = shard.t() if weight.split is TensorSplit.COLUMNS else shard
    parts = weight.separately_split_parts
    rows, width = view.shape[0] // parts, view.shape[1]
    for part in range(parts):
        # Part p of the whole matrix starts at row p * rows * size.
        first = part * rows * size + rank * rows
        drawn = draw_rows(seed, name, first, rows, width)
        view[part * rows : (part + 1) * rows].copy_(drawn.mul_(std))


def named_global_parameters(chunk: GPTModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of a model chunk, with layer numbers counted over the whole model from 0."""
    prefix = "decoder.layers."
    for name, parameter in chunk.named_parameters():
        if name.startswith(prefix):
            local, rest = name[len(prefix) :].split(".", 1)
            number = chunk.decoder.layers[int(local)].layer_number - 1
            yield f"{prefix}{number}.{rest}", parameter
        else:
            yield name, parameter


@torch.no_grad()
def initialize_parameters(
    chunk: GPTModel,
    *,
    seed: int,
    init_std: float,
    layers: int,
    tensor_rank: int,
    tensor_size: int,
    draw: bool = True,
) -> None:
    """Fill one model chunk in place and mark which dimension tensor parallelism splits.

    Args:
        chunk: unwrapped model chunk of this rank.
        layers: layers of the whole model, for the residual projections' standard deviation.
        draw: False leaves the values as they are, where tensors have no contents.
    Raises:
        ValueError: the model holds a parameter that the table of weights has no row for.
    """
    for name, parameter in named_global_parameters(chunk):
        weight = weight_of(name)
        rank, size = tensor_rank, tensor_size
        if weight.split is TensorSplit.WHOLE:
            rank, size = 0, 1
        else:
            # Gradient clipping counts a weight once if it is marked as split. Megatron-Core marks it
            # itself only from 0.17 on when it does not draw the weights.
            parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
            parameter.partition_dim = weight.split.value  # type: ignore[attr-defined]
            parameter.partition_stride = weight.separately_split_parts  # type: ignore[attr-defined]
        if not draw:
            continue
        if weight.initial is Initial.ONES:
            parameter.fill_(1.0)
        else:
            std = weight.standard_deviation(layers, init_std)
            _fill(parameter, weight, name, std, seed, rank, size)
