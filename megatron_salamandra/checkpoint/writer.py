"""Saving checkpoints, in the background unless told otherwise."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_salamandra.checkpoint.contents import METADATA, sharded_state
from megatron_salamandra.checkpoint.retention import steps_to_delete
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.platform.megatron_versions import background_save_options
from megatron_salamandra.run_directory import (
    CONFIG,
    MANIFEST,
    PARTIAL,
    SHARDS,
    STATE,
    TOKENIZER,
    complete_checkpoints,
    describe_files,
    partial_directory,
    step_directory,
    step_of,
    write_manifest,
)

LOGGER = logging.getLogger("salamandra")
WRITER_PROCESSES = 2
"""Files per rank, each written by its own process."""
FP32_STATE_BYTES = 12
"""Of one parameter: master weight and two moments."""


@dataclass(frozen=True)
class SaveOutcome:
    """What became of one save. ``error`` is None when the checkpoint is complete."""

    step: int
    directory: Path
    seconds: float
    error: str | None


class CheckpointWriter:
    """Writes checkpoints of a run below ``root``; every method is collective.

    A save copies the state (device to host, or copy-on-write on the host), forks writers and
    returns; :meth:`poll` finishes saves whose writers are done on all ranks: manifest, final
    name, retention. A save that does not fit on the disk is not begun, and one whose writers
    fail is removed: the outcome says why, older checkpoints stay, and training can go on. Only a
    failure of rank 0 inside Megatron-Core's own bookkeeping (a few kilobytes) raises, because
    the other ranks are in a collective by then.
    """

    def __init__(self, root: Path, policy: CheckpointSection, *, config_yaml: str, tokenizer: Path) -> None:
        """Nothing is written before the first save.

        Args:
            root: ``RUN/checkpoints``.
            policy: what to keep, and whether to write in the background.
            config_yaml: the resolved configuration, stored in every checkpoint.
            tokenizer: SentencePiece model, stored in every checkpoint; read now, because its
                place may be gone in a week.
        """
        self._root = root
        self._policy = policy
        self._config_yaml = config_yaml
        self._tokenizer = tokenizer.read_bytes()
        self._queue = AsyncCallsQueue(persistent=False)
        self._running: list[tuple[int, float]] = []

    def save(
        self,
        step: int,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
        state: dict[str, Any],
    ) -> list[SaveOutcome]:
        """Start saving ``step``; returns the outcomes of all saves that ended by now.

        A save that is still running is finished first: two at a time would double the memory.

        Args:
            state: contents of ``state.json``.
        """
        outcomes = self.poll(wait=True)
        started = time.perf_counter()
        partial = partial_directory(self._root, step)
        for chunk in chunks:
            if chunk.ddp_config.overlap_param_gather:
                # The update has changed each rank's own part; the rest arrives with the next
                # forward pass, unless it is sent for.
                chunk.start_param_sync(force_sync=True)
        state_bytes = bytes_of_state(chunks)
        error = self._on_rank_zero(lambda: _start_directory(partial, state_bytes))
        if error is not None:
            return [*outcomes, SaveOutcome(step, step_directory(self._root, step), 0.0, error)]
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
        request.add_finalize_fn(lambda: self._publish(step, state))
        self._queue.schedule_async_request(request)
        self._running.append((step, started))
        return [*outcomes, *self.poll(wait=not self._policy.asynchronous)]

    def poll(self, *, wait: bool) -> list[SaveOutcome]:
        """Finish saves whose writers are done; with ``wait`` all of them.

        Must be called by all ranks at the same step.
        """
        if not self._running:
            return []
        step, started = self._running[0]
        directory = step_directory(self._root, step)
        error: str | None = None
        try:
            if not self._queue.maybe_finalize_async_calls(blocking=wait):
                return []
        # Writers' failures come on every rank alike; torch's CheckpointException is no Exception.
        except (Exception, CheckpointException) as failure:
            error = f"{type(failure).__name__}: {failure}"
            self._on_rank_zero(lambda: shutil.rmtree(partial_directory(self._root, step), ignore_errors=True))
        self._running.pop(0)
        return [SaveOutcome(step, directory, time.perf_counter() - started, error)]

    def _publish(self, step: int, state: dict[str, Any]) -> None:
        """Complete the directory, give it its name and prune old ones; raises on all ranks or none."""
        partial = partial_directory(self._root, step)
        rank = dist.get_rank()
        try:
            names = [f"{SHARDS}/{path.name}" for path in (partial / SHARDS).glob(f"__{rank}_*")]
            mine: dict[str, dict[str, int]] | str = describe_files(partial, names)
        except OSError as failure:
            mine = f"rank {rank}: {failure}"
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, mine)
        failures = [item for item in gathered if isinstance(item, str)]
        if failures:
            raise OSError("; ".join(failures))

        def finish() -> None:
            files = {name: entry for part in gathered for name, entry in part.items()}
            self._finish_directory(partial, files, state)
            final = step_directory(self._root, step)
            if final.exists() and not (final / MANIFEST).exists():
                shutil.rmtree(final)  # somebody's incomplete copy
            os.replace(partial, final)
            _sync(self._root)

        error = self._on_rank_zero(finish)
        if error is not None:
            raise OSError(error)
        if (error := self._on_rank_zero(self._prune)) is not None:
            LOGGER.warning("old checkpoints could not be deleted: %s", error)

    def _finish_directory(
        self, partial: Path, files: dict[str, dict[str, int]], state: dict[str, Any]
    ) -> None:
        atomic_write_bytes(partial / CONFIG, self._config_yaml.encode())
        atomic_write_bytes(partial / STATE, json.dumps(state, indent=1).encode())
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
            # Renamed first, so that a deletion cut short never looks like a checkpoint.
            doomed = partial_directory(self._root, step)
            shutil.rmtree(doomed, ignore_errors=True)
            os.replace(present[step], doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _on_rank_zero(self, action: Callable[[], None]) -> str | None:
        """Run ``action`` on rank 0 and tell all ranks what went wrong, or None."""
        message: list[str | None] = [None]
        if dist.get_rank() == 0:
            try:
                action()
            except Exception as failure:  # the other ranks wait for the answer
                message[0] = f"{type(failure).__name__}: {failure}"
        dist.broadcast_object_list(message, src=0)
        return message[0]


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


def _start_directory(partial: Path, state_bytes: int) -> None:
    for stale in partial.parent.glob(f"{PARTIAL}*"):
        if stale.is_dir():
            shutil.rmtree(stale)
    (partial / SHARDS).mkdir(parents=True)
    free = shutil.disk_usage(partial).free
    if free < state_bytes:
        partial.joinpath(SHARDS).rmdir()
        partial.rmdir()
        raise OSError(
            errno.ENOSPC, f"the checkpoint needs {state_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB are free"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
