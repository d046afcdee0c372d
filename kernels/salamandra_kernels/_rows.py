"""Walking a large tensor a block of rows at a time, so that fp32 working copies stay small."""

from __future__ import annotations

from collections.abc import Iterator

import torch

# Elements of one fp32 working block: 16 MiB on the CPU. Smaller blocks gain nothing on one thread, and on
# several each of their short parallel sections waits for a thread that another process may have displaced.
BLOCK_ELEMENTS = 1 << 22
CUDA_BLOCK_ELEMENTS = 1 << 26


def row_blocks(rows: int, row_elements: int, device: torch.device) -> Iterator[slice]:
    """Yields slices that cover ``range(rows)``, each at least one row and about one working block."""
    block_elements = CUDA_BLOCK_ELEMENTS if device.type == "cuda" else BLOCK_ELEMENTS
    step = max(1, block_elements // max(1, row_elements))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type sums and products are done in: fp32, or fp64 when the tensor itself is fp64."""
    return torch.float64 if dtype == torch.float64 else torch.float32
