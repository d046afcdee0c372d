"""Comparing two checkpoints tensor by tensor, a block at a time, whatever layouts they were saved in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_salamandra.checkpoint.stored_tensors import StoredTensors

BLOCK_BYTES = 64 << 20
"""Of each tensor held at once, at most, where a row is not larger."""


@dataclass(frozen=True)
class Difference:
    """How a tensor of one checkpoint differs from that of the other.

    Attributes:
        elements: of the tensor.
        differing: of these, how many are not equal; a NaN equals a NaN.
        largest: greatest absolute difference; NaN where only one of two is a number.
        relative: L2 norm of the difference over that of the first tensor.
    """

    name: str
    elements: int
    differing: int
    largest: float
    relative: float


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints have in common.

    Attributes:
        only_in_first, only_in_second: names of tensors and objects.
        other_kind: name and description of tensors that differ in shape or dtype.
        differing: tensors that can be compared and are not equal, by name.
        equal: how many tensors are.
    """

    only_in_first: list[str]
    only_in_second: list[str]
    other_kind: list[tuple[str, str]]
    differing: list[Difference]
    equal: int

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_in_first or self.only_in_second or self.other_kind or self.differing)


def compare_checkpoints(first: Path, second: Path) -> Comparison:
    """Compare all tensors of two checkpoint directories, which were proved before.

    Raises:
        CheckpointError: one cannot be read.
    """
    ours, theirs = StoredTensors(first), StoredTensors(second)
    names = [{*stored.names, *stored.objects} for stored in (ours, theirs)]
    other_kind: list[tuple[str, str]] = []
    differing: list[Difference] = []
    equal = 0
    for name in sorted(set(ours.names) & set(theirs.names)):
        kinds = [
            f"{list(stored.stored(name).size)} {stored.stored(name).properties.dtype}"
            for stored in (ours, theirs)
        ]
        if kinds[0] != kinds[1]:
            other_kind.append((name, f"{kinds[0]} and {kinds[1]}"))
            continue
        difference = _compare(ours, theirs, name)
        if difference is None:
            equal += 1
        else:
            differing.append(difference)
    return Comparison(sorted(names[0] - names[1]), sorted(names[1] - names[0]), other_kind, differing, equal)


def blocks_of(
    size: torch.Size, element_bytes: int, block_bytes: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Offset and size of blocks that a tensor consists of, each at most ``block_bytes``, or one element, long."""
    for axis, length in enumerate(size):
        row = math.prod(size[axis + 1 :]) * element_bytes
        if length > 1 and (row <= block_bytes or axis == len(size) - 1):
            rows = max(1, block_bytes // max(row, 1))
            for outer in _positions(size[:axis]):
                for start in range(0, length, rows):
                    count = min(rows, length - start)
                    offset = [*outer, start, *[0] * (len(size) - axis - 1)]
                    yield offset, [*[1] * axis, count, *size[axis + 1 :]]
            return
    yield [0] * len(size), list(size)


def _positions(size: torch.Size) -> Iterator[list[int]]:
    if not size:
        yield []
        return
    for first in range(size[0]):
        for rest in _positions(size[1:]):
            yield [first, *rest]


def _compare(ours: StoredTensors, theirs: StoredTensors, name: str) -> Difference | None:
    stored = ours.stored(name)
    elements = differing = 0
    largest = squares = squares_of_first = 0.0
    for offset, size in blocks_of(stored.size, stored.properties.dtype.itemsize, BLOCK_BYTES):
        a, b = ours.read(name, offset, size), theirs.read(name, offset, size)
        elements += a.numel()
        differ = (a != b) & ~((a != a) & (b != b))
        count = int(differ.sum())
        squares_of_first += float(torch.linalg.vector_norm(a.double())) ** 2
        if count:
            differing += count
            gap = (a[differ].double() - b[differ].double()).abs()
            largest = max(largest, float(gap.max())) if not gap.isnan().any() else math.nan
            squares += float(gap.square().sum())
    if not differing:
        return None
    relative = math.sqrt(squares / squares_of_first) if squares_of_first else math.inf
    return Difference(name, elements, differing, largest, relative)
