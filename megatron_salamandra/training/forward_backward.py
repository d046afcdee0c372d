"""One pass of Megatron-Core's pipeline schedule over the micro-batches of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
    """Loss of this rank's micro-batches: sum over valid tokens, and their number; fp64 [] on the device.

    Zero on ranks that do not report (see :attr:`ProcessGrid.reports_loss`), so that a sum over
    the world counts every token once.
    """

    nats: Tensor
    tokens: Tensor


class ForwardBackward(Protocol):
    """The signature of :func:`run_micro_batches`, for what stands in its place."""

    def __call__(
        self,
        chunks: list[DistributedDataParallel],
        batches: list[MicroBatch],
        config: RunConfig,
        grid: ProcessGrid,
        divisor: int,
    ) -> LossSum:
        """Forward and backward over the micro-batches of a step."""


def exact_divisor(tokens: int) -> int:
    """What the loss of a step of so many tokens is divided by before backward, for gradients that are means at once.

    A power of two divides without rounding, so that the gradients have the bits of sums that are divided afterwards,
    in a pass over all of them. Of any other number they have not, and the divisor is 1: the pass stays.
    """
    return tokens if tokens & (tokens - 1) == 0 else 1


def _one_by_one(batches: list[MicroBatch]) -> Iterator[MicroBatch]:
    """The micro-batches of a step; the rank is in the forward pass of the one that was handed out."""
    for number, batch in enumerate(batches, 1):
        PROGRESS.enter(Part.FORWARD, f"micro-batch {number} of {len(batches)}")
        yield batch


def masked_sum(loss_mask: Tensor, loss_bs: Tensor, divisor: int = 1) -> Reduced:
    """Sum of a micro-batch's loss over its valid tokens, in the form the schedule expects.

    Args:
        divisor: of the sum that backward starts from, a power of two.
    Returns:
        the sum over the divisor (fp32, differentiable), the number of valid tokens (int32), and for logging the sum
        itself and that number.
    """
    if (place := PROGRESS.place).part is Part.FORWARD:
        PROGRESS.enter(Part.BACKWARD, place.detail)
    total = torch.sum(loss_bs.float() * _weights(loss_mask, divisor))
    tokens = loss_mask.sum().to(torch.int32)
    return total, tokens, {"nats": total.detach() * divisor, "tokens": tokens}


def _weights(loss_mask: Tensor, divisor: int) -> Tensor:
    return loss_mask if divisor == 1 else loss_mask / divisor


def _forward_step(
    batches: Iterator[MicroBatch], model: Any, *, divisor: int
) -> tuple[Tensor, Callable[[Tensor], Reduced]]:
    batch = next(batches)
    output = model(
        batch.tokens,
        batch.position_ids,
        batch.document_bounds,  # Megatron-Core hands the mask to the attention as it is.
        labels=batch.labels,
        loss_mask=_weights(batch.loss_mask, divisor),
    )
    return output, lambda loss_bs: masked_sum(batch.loss_mask, loss_bs, divisor)


def run_micro_batches(
    chunks: list[DistributedDataParallel],
    batches: list[MicroBatch],
    config: RunConfig,
    grid: ProcessGrid,
    divisor: int = 1,
    *,
    forward_only: bool = False,
) -> LossSum:
    """Run forward, and backward unless ``forward_only``, over all micro-batches; collective.

    After backward, gradients are sums over the global batch's valid tokens by the divisor; Megatron-Core's
    ``finalize_model_grads`` makes means of sums. Nothing waits for the device.

    Args:
        batches: on the device (:func:`~megatron_salamandra.training.device_feed.on_device`).
        divisor: of :func:`exact_divisor`.
    """
    # Every model chunk walks the same micro-batches on its own.
    iterators = [iter(batches) if forward_only else _one_by_one(batches) for _ in chunks]
    reports = get_forward_backward_func()(
        forward_step_func=partial(_forward_step, divisor=divisor),
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=chunks if len(chunks) > 1 else chunks[0],
        num_microbatches=len(batches),
        seq_length=batches[0].tokens.shape[1],
        micro_batch_size=batches[0].tokens.shape[0],
        forward_only=forward_only,
    )
    if not grid.reports_loss:
        nothing = torch.zeros((), dtype=torch.float64, device=torch.cuda.current_device())
        return LossSum(nothing, nothing)
    return LossSum(
        nats=torch.stack([report["nats"] for report in reports]).double().sum(),
        tokens=torch.stack([report["tokens"] for report in reports]).double().sum(),
    )
