"""The layouts that must all train the same model: name -> ranks, overrides. On CPU ranks, and on as many GPUs."""

from __future__ import annotations

from typing import Final

_SEQUENCE = "parallel.sequence=true"
LAYOUTS: Final[dict[str, tuple[int, list[str]]]] = {
    "TP2": (2, ["parallel.tensor=2"]),
    "TP2+SP": (2, ["parallel.tensor=2", _SEQUENCE]),
    "PP2": (2, ["parallel.pipeline=2"]),
    "PP2xVPP2": (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    "PP2-uneven": (2, ["parallel.pipeline=2", "parallel.pipeline_layout=Ettt|tL"]),
    "DP2": (2, []),
    "DP2-overlap": (2, ["optimizer.overlap_grad_reduce=true", "optimizer.overlap_param_gather=true"]),
    "chunked-head-DP2-overlap": (
        2,
        [
            "optimizer.overlap_grad_reduce=true",
            "optimizer.overlap_param_gather=true",
            "kernels.loss_chunk_tokens=24",
        ],
    ),
    "micro-batch-4": (1, ["training.micro_batch_size=4"]),
    "recompute-full": (1, ["training.recompute=full"]),
    "recompute-selective": (1, ["training.recompute=selective"]),
    "TP2xPP2": (4, ["parallel.tensor=2", "parallel.pipeline=2", _SEQUENCE]),
    "TP2xPP2xDP2": (8, ["parallel.tensor=2", "parallel.pipeline=2", _SEQUENCE]),
}
BF16_BOUND: Final = 2e-3
"""Relative difference of the loss that bf16 may show between layouts: sums in another order, rounded to 8 bits."""
