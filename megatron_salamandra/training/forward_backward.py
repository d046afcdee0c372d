"""One pass of Megatron-Core's pipeline schedule over the micro-batches of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_salamandra.config import RunConfig
from megatron_salamandra.data import MicroBatch
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.parallel import ProcessGrid

Reduced = tuple[Tensor, Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class LossSum:
    """Loss of this rank's micro-batches: sum over valid tokens, and their number.

    Zero on ranks that do not report (see :attr:`ProcessGrid.reports_loss`), so that a sum over
    the world counts every token once.
    """

    nats: float
    tokens: float


class ForwardBackward(Protocol):
    """The signature of :func:`run_micro_batches`, for what stands in its place."""

    def __call__(
        self,
        chunks: list[DistributedDataParallel],
        batches: list[MicroBatch],
        config: RunConfig,
        grid: ProcessGrid,
    ) -> LossSum:
        """Forward and backward over the micro-batches of a step."""


def _one_by_one(batches: list[MicroBatch]) -> Iterator[MicroBatch]:
    """The micro-batches of a step; the rank is in the forward pass of the one that was handed out."""
    for number, batch in enumerate(batches, 1):
        PROGRESS.enter(Part.FORWARD, f"micro-batch {number} of {len(batches)}")
        yield batch


def masked_sum(loss_mask: Tensor, loss_bs: Tensor) -> Reduced:
    """Sum of a micro-batch's loss over its valid tokens, in the form the schedule expects.

    Returns:
        the sum (fp32, differentiable), the number of valid tokens (int32), and both for logging.
    """
    if (place := PROGRESS.place).part is Part.FORWARD:
        PROGRESS.enter(Part.BACKWARD, place.detail)
    total = torch.sum(loss_bs.float() * loss_mask)
    tokens = loss_mask.sum().to(torch.int32)
    return total, tokens, {"nats": total.detach(), "tokens": tokens}


def _forward_step(batches: Iterator[MicroBatch], model: Any) -> tuple[Tensor, Callable[[Tensor], Reduced]]:
    batch = next(batches)
    device = torch.cuda.current_device()
    loss_mask = batch.loss_mask.to(device)
    bounds = batch.document_bounds
    output = model(
        batch.tokens.to(device),
        batch.position_ids.to(device),
        # Megatron-Core hands the mask to the attention as it is.
        None if bounds is None else bounds.to(device),
        labels=batch.labels.to(device),
        loss_mask=loss_mask,
    )
    return output, lambda loss_bs: masked_sum(loss_mask, loss_bs)


def run_micro_batches(
    chunks: list[DistributedDataParallel],
    batches: list[MicroBatch],
    config: RunConfig,
    grid: ProcessGrid,
    *,
    forward_only: bool = False,
) -> LossSum:
    """Run forward, and backward unless ``forward_only``, over all micro-batches; collective.

    After backward, gradients are means over the global number of valid tokens.
    """
    # Every model chunk walks the same micro-batches on its own.
    iterators = [iter(batches) if forward_only else _one_by_one(batches) for _ in chunks]
    reports = get_forward_backward_func()(
        forward_step_func=_forward_step,
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=chunks if len(chunks) > 1 else chunks[0],
        num_microbatches=len(batches),
        seq_length=batches[0].tokens.shape[1],
        micro_batch_size=batches[0].tokens.shape[0],
        forward_only=forward_only,
    )
    if not grid.reports_loss:
        return LossSum(0.0, 0.0)
    return LossSum(
        nats=sum(float(report["nats"]) for report in reports),
        tokens=sum(float(report["tokens"]) for report in reports),
    )
