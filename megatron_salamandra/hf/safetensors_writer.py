"""Writing safetensors files from a stream of tensors, one tensor in memory at a time.

The library's ``save_file`` needs all tensors of a file at once, gigabytes of them; the format
itself only needs their shapes beforehand: eight bytes with the length of a JSON header, the
header, then the raw tensors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_salamandra.hf.errors import HuggingFaceError

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class WeightFiles:
    """What was written: file names, bytes of tensor data, and the index of names to files."""

    files: tuple[str, ...]
    total_bytes: int
    index: dict[str, Any]


def write_weights(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    shard_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> WeightFiles:
    """Write ``tensors``, converted to ``dtype``, into numbered safetensors files and their index.

    Args:
        directory: existing directory; gets ``model-NNNNN-of-NNNNN.safetensors`` and
            ``model.safetensors.index.json``.
        shapes: name -> shape of every tensor, in the order in which ``tensors`` yields them.
        tensors: (name, tensor) pairs on CPU, each dropped once written.
        shard_bytes: largest tensor data of one file; a larger tensor gets a file of its own.
        on_progress: called with (bytes written, bytes in all) after each tensor.
    Raises:
        HuggingFaceError: ``tensors`` differ from ``shapes``, or ``dtype`` has no safetensors name.
        OSError: the file system refused, for example because it is full.
    """
    if dtype not in DTYPE_NAMES:
        raise HuggingFaceError(f"cannot export as {dtype}\n  allowed: float32, bfloat16, float16")
    groups = _group(shapes, dtype.itemsize, shard_bytes)
    names = tuple(
        f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)
    )
    total_bytes = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    stream = iter(tensors)
    written = 0

    def advance(size: int) -> None:
        nonlocal written
        written += size
        if on_progress is not None:
            on_progress(written, total_bytes)

    for file_name, group in zip(names, groups, strict=True):
        _write_file(directory / file_name, {name: shapes[name] for name in group}, stream, dtype, advance)
    surplus = next(stream, None)
    if surplus is not None:
        raise HuggingFaceError(f"unexpected tensor {surplus[0]} after the last one of the model")
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": {name: file for file, group in zip(names, groups, strict=True) for name in group},
    }
    return WeightFiles(files=names, total_bytes=total_bytes, index=index)


def _group(shapes: Mapping[str, tuple[int, ...]], item_bytes: int, shard_bytes: int) -> list[list[str]]:
    """Names per file, in order, so that no file exceeds ``shard_bytes`` where a tensor allows it."""
    groups: list[list[str]] = []
    room = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * item_bytes
        if not groups or size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(name)
        room -= size
    return groups


def _write_file(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterator[tuple[str, Tensor]],
    dtype: torch.dtype,
    advance: Callable[[int], None],
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensor data starts at a multiple of 8 bytes
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for name, shape in shapes.items():
            found_name, tensor = next(tensors, ("end of stream", torch.empty(0)))
            if found_name != name or tuple(tensor.shape) != shape:
                raise HuggingFaceError(
                    f"expected tensor {name} {list(shape)}, got {found_name} {list(tensor.shape)}"
                )
            raw = tensor.to(dtype).contiguous().view(-1).view(torch.uint8)
            stream.write(raw.numpy().data)
            advance(raw.numel())
        stream.flush()
        os.fsync(stream.fileno())
