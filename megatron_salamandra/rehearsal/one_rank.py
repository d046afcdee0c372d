"""One rank of a job: built, stepped and saved as the trainer does it, with account of memory and calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from megatron_salamandra.checkpoint import bytes_saved_by_rank
from megatron_salamandra.config import RunConfig
from megatron_salamandra.data import MicroBatch
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.signals import SignalWatch
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.parallel import ProcessGrid, start_process_grid
from megatron_salamandra.platform import Platform, select_platform
from megatron_salamandra.rehearsal.calls import CallBook
from megatron_salamandra.rehearsal.errors import RehearsalError
from megatron_salamandra.rehearsal.ledger import MemoryLedger
from megatron_salamandra.rehearsal.modules import ModuleTrail
from megatron_salamandra.rehearsal.recorder import Recorder
from megatron_salamandra.rehearsal.results import Call, Category, MemoryPeak
from megatron_salamandra.rehearsal.stand_ins import (
    contents,
    modules_stay_where_they_are,
    other_ranks_agree,
)
from megatron_salamandra.training import (
    CallbackList,
    Progress,
    Run,
    Runtime,
    TrainStep,
    build_model_and_optimizer,
    run_micro_batches,
)

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Performance:
    """What one rank did.

    Attributes:
        rank: its number.
        layout: in words.
        parameters: of the model, on this rank.
        peaks: of each phase of its second step, and of the plan of the save behind it.
        calls: of its second step; forward passes count from there.
        save_bytes: what it writes in a save.
    """

    rank: int
    layout: str
    parameters: int
    peaks: tuple[MemoryPeak, ...]
    calls: tuple[Call, ...]
    save_bytes: int
    seconds: float


class _SameBatches:
    """In a loader's place: its steps all have the same micro-batches, which are on the device already."""

    def __init__(self, batch: MicroBatch, count: int) -> None:
        self._batches = [batch] * count

    def next_step(self) -> list[MicroBatch]:
        return list(self._batches)

    def look_ahead(self) -> None:
        """There is nothing to read."""


def perform(
    config: RunConfig,
    grid: ProcessGrid,
    platform: Platform,
    micro_batches: int,
    *,
    answered: bool,
) -> Performance:
    """Build what a rank holds, do two steps and plan a save; collective unless ``answered``.

    The optimizer makes its moments in the first step, so the second is what every later one is like.

    Args:
        micro_batches: of the second step; the first has as few as the pipeline's schedule allows.
        answered: the other ranks are not there, and tensors have no contents.
    """
    started = time.perf_counter()
    trail = ModuleTrail()
    ledger, book = MemoryLedger(trail), CallBook(trail)
    PROGRESS.restart()
    with trail.following(), Recorder(ledger, book, answered=answered):
        chunks, optimizer = build_model_and_optimizer(config, grid, platform, draw_weights=not answered)
        trail.name_modules(chunks)
        _label(ledger, chunks)
        ledger.label_rest(Category.OPTIMIZER)
        progress = Progress(config.timeline)
        step = _train_step(config, grid, platform, chunks, optimizer)
        batch = _batch(config)
        fewest = config.parallel.pipeline if config.parallel.virtual_pipeline else 1
        step.run(cast(Any, _SameBatches(batch, fewest)), 1, progress)
        ledger.label_rest(Category.OPTIMIZER)
        ledger.forget_peaks()
        book.restart()
        step.run(cast(Any, _SameBatches(batch, micro_batches)), 2, progress)
        calls = tuple(book.calls)
        PROGRESS.enter(Part.SAVE)
        save_bytes = bytes_saved_by_rank(chunks, optimizer)
    PROGRESS.restart()
    return Performance(
        rank=grid.rank,
        layout=grid.describe(),
        parameters=sum(parameter.numel() for chunk in chunks for parameter in chunk.parameters()),
        peaks=ledger.peaks(),
        calls=calls,
        save_bytes=save_bytes,
        seconds=time.perf_counter() - started,
    )


def _label(ledger: MemoryLedger, chunks: list[DistributedDataParallel]) -> None:
    for chunk in chunks:
        ledger.label(chunk.parameters(), Category.WEIGHTS)
        for buffer in (*chunk.buffers, *chunk.expert_parallel_buffers):
            ledger.label([buffer.grad_data], Category.GRADIENTS)
        ledger.label(chunk.module.buffers(), Category.TEMPORARY)


def _batch(config: RunConfig) -> MicroBatch:
    shape = config.training.micro_batch_size, config.data.sequence_length
    rows = torch.zeros(shape, dtype=torch.int64)
    bounds = None
    if config.data.document_masking:  # one document in each row
        bounds = torch.arange(shape[0] + 1, dtype=torch.int32) * shape[1]
    return MicroBatch(rows, rows.clone(), torch.ones(shape), rows.clone(), bounds)


def _train_step(
    config: RunConfig, grid: ProcessGrid, platform: Platform, chunks: Any, optimizer: Any
) -> TrainStep:
    """The trainer's step, without callbacks and without a run directory."""
    nothing: Any = None
    runtime = Runtime(
        config, nothing, platform, grid, nothing, nothing, SignalWatch(), owner=None, watchdog=nothing
    )
    return TrainStep(
        runtime,
        chunks,
        optimizer,
        forward_backward=run_micro_batches,
        callbacks=CallbackList([], cast(Run, SimpleNamespace(logger=LOGGER))),
        clock=time.perf_counter,
    )


def rehearse_rank(config: RunConfig, world_size: int, micro_batches: int, rank: int) -> Performance:
    """Run one rank of a job in this process, without the others.

    Raises:
        RehearsalError: its code fails; names the rank, the phase and the module.
    """
    with alone(config, world_size, rank) as (grid, platform):
        try:
            return perform(config, grid, platform, micro_batches, answered=True)
        except UserError:
            raise
        except Exception as error:
            raise RehearsalError(
                f"rank {rank} (stage {grid.pipeline_rank}) fails {PROGRESS.place}{_module_of(error)}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _module_of(error: Exception) -> str:
    """In which module it was raised."""
    found, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, torch.nn.Module):
            found = f" in {type(module).__name__}"
        trace = trace.tb_next
    return found


@contextmanager
def alone(config: RunConfig, world_size: int, rank: int) -> Iterator[tuple[ProcessGrid, Platform]]:
    """Be one rank of a world in which nobody else is, on tensors without contents."""
    platform = select_platform("host")
    with ExitStack() as stack:
        platform.start(0)
        stack.callback(platform.stop)
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
        stack.callback(dist.destroy_process_group)
        grid = stack.enter_context(start_process_grid(config.parallel, config.training.seed, platform))
        stack.enter_context(other_ranks_agree())
        stack.enter_context(modules_stay_where_they_are())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(contents(on_gpu=config.platform != "host"))
        yield grid, platform
