"""Saving checkpoints, in the background unless the configuration says otherwise."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as partial_call
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_salamandra.checkpoint.checksums import take_description, write_and_describe
from megatron_salamandra.checkpoint.contents import METADATA, sharded_state
from megatron_salamandra.checkpoint.retention import steps_to_delete
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.parents import bind_forks
from megatron_salamandra.platform import background_save_options, start_result_queue
from megatron_salamandra.run_directory import (
    CONFIG,
    SHARDS,
    STATE,
    TOKENIZER,
    CheckpointError,
    CheckpointState,
    OwnershipLost,
    RunOwner,
    begin_partial,
    complete_checkpoints,
    delete_checkpoint,
    describe_files,
    drop_partial,
    publish_partial,
    set_aside,
    step_directory,
    step_of,
    write_manifest,
)

LOGGER = logging.getLogger("salamandra")
Answer = TypeVar("Answer")
WRITER_PROCESSES = 2
"""Files per rank, each written by its own process."""
FP32_STATE_BYTES = 12
"""Of one parameter: master weight and two moments."""


@dataclass(frozen=True)
class SaveOutcome:
    """What became of one save, the same on all ranks but for the times.

    Attributes:
        seconds: from its beginning until its end was seen.
        stall_seconds: of these, how long training stood still.
        error: what failed, on which rank and host; None when the checkpoint is complete.
    """

    step: int
    directory: Path
    seconds: float
    stall_seconds: float
    error: str | None


@dataclass
class _Save:
    """A save that is running: where it is assembled, when it began, and how long training has stood still for it."""

    step: int
    partial: Path
    started: float
    stall_seconds: float = 0.0


class CheckpointWriter:
    """Writes checkpoints of a run below ``root``; every method is collective.

    A save copies the state (device to host, or copy-on-write on the host), forks writers and
    returns; :meth:`poll` finishes saves whose writers are done on all ranks: manifest, final
    name, retention. A save that does not fit on the disk is not begun, and one whose writers
    fail is removed: the outcome says why, older checkpoints stay, and training can go on. Only a
    failure of rank 0 inside Megatron-Core's own bookkeeping (a few kilobytes) raises, because
    the other ranks are in a collective by then.
    """

    def __init__(
        self,
        root: Path,
        policy: CheckpointSection,
        *,
        config_yaml: str,
        tokenizer: Path,
        owner: RunOwner | None,
    ) -> None:
        """Nothing is written before the first save.

        Args:
            root: ``RUN/checkpoints``.
            policy: what to keep, and whether to write in the background.
            config_yaml: the resolved configuration, stored in every checkpoint.
            tokenizer: SentencePiece model, stored in every checkpoint; read now, because its
                place may be gone in a week.
            owner: of the run directory, on rank 0: asked before anything there is deleted or gets its name.
        """
        self._root = root
        self._policy = policy
        self._config_yaml = config_yaml
        self._tokenizer = tokenizer.read_bytes()
        self._queue = AsyncCallsQueue(persistent=False)
        self._running: list[_Save] = []
        self._owner = owner
        self._lost: str | None = None
        # What a signal kills with this rank must not go on writing.
        bind_forks()

    def save(
        self,
        step: int,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
        state: CheckpointState,
    ) -> list[SaveOutcome]:
        """Start saving ``step``; returns the outcomes of all saves that ended by now.

        A save that is still running is finished first: two at a time would double the memory.

        Args:
            state: contents of ``state.json``.
        Raises:
            CheckpointError: another run has taken the run directory.
        """
        outcomes = self.poll(wait=True)
        started = time.perf_counter()
        for chunk in chunks:
            if chunk.ddp_config.overlap_param_gather:
                # The update has changed each rank's own part; the rest arrives with the next
                # forward pass, unless it is sent for.
                chunk.start_param_sync(force_sync=True)
        state_bytes = bytes_of_state(chunks)
        partial, error = self._on_rank_zero(lambda: self._start_directory(step, state_bytes))
        self._raise_if_lost()
        if partial is None:
            return [*outcomes, SaveOutcome(step, step_directory(self._root, step), 0.0, 0.0, error)]
        start_result_queue()
        strategy = TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=WRITER_PROCESSES)
        parallel_strategy = FullyParallelSaveStrategyWrapper(
            strategy, parallel_state.get_data_parallel_group(with_context_parallel=True)
        )
        request = dist_checkpointing.save(
            sharded_state(chunks, optimizer, loading=False),
            str(partial / SHARDS),
            sharded_strategy=parallel_strategy,
            async_sharded_save=True,
            content_metadata=dict(METADATA),
            **background_save_options(),
        )
        writes = request.async_fn is not None
        if writes:
            described = partial_call(write_and_describe, request.async_fn, partial, dist.get_rank())
            request = request._replace(async_fn=described)
        request.add_finalize_fn(lambda: self._publish(step, partial, state, writes))
        self._queue.schedule_async_request(request)
        self._running.append(_Save(step, partial, started, time.perf_counter() - started))
        return [*outcomes, *self.poll(wait=not self._policy.asynchronous)]

    def poll(self, *, wait: bool) -> list[SaveOutcome]:
        """Finish saves whose writers are done; with ``wait`` all of them.

        Must be called by all ranks at the same step.

        Raises:
            CheckpointError: another run has taken the run directory.
        """
        if not self._running:
            return []
        save = self._running[0]
        looked = time.perf_counter()
        error: str | None = None
        try:
            if not self._queue.maybe_finalize_async_calls(blocking=wait):
                save.stall_seconds += time.perf_counter() - looked
                return []
        # Writers' failures come on every rank alike; torch's CheckpointException is no Exception.
        except (Exception, CheckpointException) as failure:
            error = _agreed(failure)
            self._on_rank_zero(lambda: drop_partial(save.partial))
        self._running.pop(0)
        self._raise_if_lost()
        ended = time.perf_counter()
        directory = step_directory(self._root, save.step)
        stall = save.stall_seconds + ended - looked
        return [SaveOutcome(save.step, directory, ended - save.started, stall, error)]

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise CheckpointError(self._lost)

    def _publish(self, step: int, partial: Path, state: CheckpointState, writes: bool) -> None:
        """Complete the directory, give it its name and prune old ones; raises on all ranks or none."""
        rank = dist.get_rank()
        try:
            mine: dict[str, dict[str, Any]] | str = take_description(partial, rank) if writes else {}
        except (OSError, ValueError) as failure:
            mine = f"rank {rank} on {socket.gethostname()}: {failure}"
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, mine)
        failures = [item for item in gathered if isinstance(item, str)]
        if failures:
            raise OSError("; ".join(failures))

        def finish() -> None:
            files = {name: entry for part in gathered for name, entry in part.items()}
            self._finish_directory(partial, files, state)
            if self._owner is not None:
                self._owner.check()
            final = step_directory(self._root, step)
            if final.exists():  # somebody's incomplete copy, or one that was not intact when this run began
                set_aside(final)
            publish_partial(partial, final)
            _sync(self._root)

        _, error = self._on_rank_zero(finish)
        if error is not None:
            raise OSError(error)
        self._on_rank_zero(self._prune)

    def _finish_directory(
        self, partial: Path, files: dict[str, dict[str, Any]], state: CheckpointState
    ) -> None:
        atomic_write_bytes(partial / CONFIG, self._config_yaml.encode())
        atomic_write_bytes(partial / STATE, json.dumps(state.values, indent=1).encode())
        atomic_write_bytes(partial / TOKENIZER, self._tokenizer)
        rest = [
            str(path.relative_to(partial))
            for path in partial.rglob("*")
            if path.is_file() and str(path.relative_to(partial)) not in files
        ]
        for name in rest:  # Megatron-Core syncs the tensors' files only
            _sync(partial / name)
        _sync(partial / SHARDS)
        write_manifest(partial, files | describe_files(partial, rest))

    def _prune(self) -> None:
        present = {step_of(path): path for path in complete_checkpoints(self._root)}
        for step in steps_to_delete(list(present), self._policy):
            try:
                delete_checkpoint(present[step])
            except OSError as error:
                LOGGER.warning("%s could not be deleted: %s", present[step], error.strerror)

    def _start_directory(self, step: int, state_bytes: int) -> Path:
        if self._owner is not None:
            self._owner.check()
        partial = begin_partial(self._root, step, self._owner.token if self._owner else "alone")
        free = shutil.disk_usage(partial).free
        if free < state_bytes:
            drop_partial(partial)
            raise OSError(
                errno.ENOSPC,
                f"the checkpoint needs {state_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB are free",
            )
        return partial

    def _on_rank_zero(self, action: Callable[[], Answer]) -> tuple[Answer | None, str | None]:
        """Run ``action`` on rank 0 and tell all ranks its answer, or what went wrong."""
        told: list[Any] = [None, None, None]
        if dist.get_rank() == 0:
            try:
                told[0] = action()
            except OwnershipLost as failure:
                told[1] = told[2] = str(failure)
            except Exception as failure:  # the other ranks wait for the answer
                told[1] = f"{type(failure).__name__}: {failure}"
        dist.broadcast_object_list(told, src=0)
        answer, error, lost = told
        self._lost = self._lost or lost
        return answer, error


def _agreed(failure: BaseException) -> str:
    """What failed, in the same words on all ranks: of which rank on which host, where only some failed; collective."""
    errors: dict[int, str] = {}
    if isinstance(failure, CheckpointException):
        errors = {rank: str(error) or repr(error) for rank, (error, _) in failure.failures.items()}
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (socket.gethostname(), errors, f"{type(failure).__name__}: {failure}"))
    # Not every rank is told of the others' failures.
    failed = {rank: text for _, theirs, _ in gathered for rank, text in theirs.items()}
    if not failed:
        return str(gathered[0][2])
    return "; ".join(f"rank {rank} on {gathered[rank][0]}: {failed[rank]}" for rank in sorted(failed))


def bytes_of_state(chunks: list[DistributedDataParallel]) -> int:
    """Size of weights, fp32 master weights and both moments over all ranks; collective."""
    mine = 0
    for chunk in chunks:
        for parameter in chunk.parameters():
            split = getattr(parameter, "tensor_model_parallel", False)
            if split or parallel_state.get_tensor_model_parallel_rank() == 0:
                mine += parameter.numel() * (parameter.element_size() + FP32_STATE_BYTES)
    total = torch.tensor([mine], dtype=torch.int64, device=torch.cuda.current_device())
    # Pipeline stages and tensor ranks hold different parameters, data-parallel ranks the same.
    dist.all_reduce(total, group=parallel_state.get_model_parallel_group())
    return int(total.item())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
