"""Saving checkpoints, in the background unless the configuration says otherwise."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor

from megatron_salamandra.checkpoint.background import Answer, BackgroundWork, HelperDied, reap
from megatron_salamandra.checkpoint.completion import Contents, complete, open_directory
from megatron_salamandra.checkpoint.contents import METADATA, bytes_of_state, sharded_state
from megatron_salamandra.checkpoint.disk import Disk, SaveError
from megatron_salamandra.checkpoint.local_copies import LocalCopies
from megatron_salamandra.checkpoint.retention import prune
from megatron_salamandra.checkpoint.save_plan import Item, Planner, RankPlan
from megatron_salamandra.checkpoint.tensor_files import Written, write_tensor_files
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.parents import bind_forks
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.run_directory import (
    CheckpointError,
    CheckpointState,
    OwnershipLost,
    RunOwner,
    drop_partial,
    place_of_partial,
    step_directory,
    verify_checkpoint,
)

LOGGER = logging.getLogger("salamandra")
Told = TypeVar("Told")
_LOOK_SECONDS = 0.2
"""How often ranks that wait for a save ask each other."""
_CLEAN_UP_SECONDS = 60.0


@dataclass(frozen=True)
class SaveOutcome:
    """What became of one save, the same on all ranks but for the times.

    Attributes:
        seconds: from its beginning until its end was seen.
        stall_seconds: of these, how long training stood still.
        bytes: size of the checkpoint; 0 if there is none.
        retries: attempts that the disk of any rank refused, and that were repeated.
        error: what failed, on which rank and host; None when the checkpoint is complete.
    """

    step: int
    directory: Path
    seconds: float
    stall_seconds: float
    bytes: int
    retries: int
    error: str | None


@dataclass
class _Save:
    """A save that is running.

    Attributes:
        partial: where it is assembled.
        work: what this rank has a process for; None if nothing.
        completing: whether the tensors of all ranks are written.
        contents: what rank 0 adds to them.
        plan: of the tensors, until they are written. The process that writes them reads copies in the host's memory,
            which must not be given to anybody else meanwhile: pinned memory is not copied when it is written to.
    """

    step: int
    partial: Path
    started: float
    work: BackgroundWork | None
    contents: Contents | None
    plan: RankPlan | None
    completing: bool = False
    retries: int = 0
    stall_seconds: float = 0.0


@dataclass(frozen=True)
class _Word:
    """What a rank says of a save that has failed somewhere."""

    host: str
    error: str | None
    lost: str | None
    published: int | None


class CheckpointWriter:
    """Writes checkpoints of a run below ``root``; every method is collective.

    A save plans, copies the state to the host where it lies on a device, forks a process on each rank and returns.
    These processes see memory as it was, and do all that touches the disk: each its rank's tensors, then one of rank 0
    the rest and the name. :meth:`poll` looks how far they are. Whatever happens to them (an error, a signal, a disk
    that does not answer in time) ends the save and nothing else: the outcome says what, and on which rank and host;
    what was written of it is removed, older checkpoints stay, and training can go on.
    """

    def __init__(
        self,
        root: Path,
        policy: CheckpointSection,
        *,
        config_yaml: str,
        tokenizer: Path,
        owner: RunOwner | None,
        local: LocalCopies | None = None,
    ) -> None:
        """Nothing is written before the first save.

        Args:
            root: ``RUN/checkpoints``.
            policy: what to keep, and whether to write in the background.
            config_yaml: the resolved configuration, stored in every checkpoint.
            tokenizer: SentencePiece model, stored in every checkpoint; read now, because its
                place may be gone in a week.
            owner: of the run directory, on rank 0: asked before anything there is deleted or gets its name.
            local: copies on this node; None if tensors go straight to ``root``.
        """
        self._root = root
        self._policy = policy
        self._config_yaml = config_yaml
        self._tokenizer = tokenizer.read_bytes()
        self._owner = owner
        self._local = local
        self._planner = Planner()
        self._state_bytes: int | None = None
        self._running: _Save | None = None
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
        started = time.perf_counter()
        if outcomes := self.poll(wait=True):
            started = time.perf_counter()  # the wait was that of the save before
        for chunk in chunks:
            if chunk.ddp_config.overlap_param_gather:
                # The update has changed each rank's own part; the rest arrives with the next
                # forward pass, unless it is sent for.
                chunk.start_param_sync(force_sync=True)
        if self._state_bytes is None:
            self._state_bytes = bytes_of_state(chunks)
        partial, error = self._on_rank_zero(lambda: self._place(step))
        self._raise_if_lost()
        if partial is None:
            return [*outcomes, self._outcome(step, error=error)]
        sharded = sharded_state(chunks, optimizer, loading=False)
        try:
            plan = _on_host(self._planner.plan({**sharded, "content_metadata": dict(METADATA)}))
        except CheckpointError as failure:  # on all ranks alike
            return [*outcomes, self._outcome(step, error=str(failure))]
        contents = None
        if plan.metadata is not None:
            contents = Contents(plan.common, plan.metadata, self._config_yaml, state, self._tokenizer)
        work = BackgroundWork(lambda: self._write_tensors(partial, step, plan), "the writer of tensors")
        self._running = _Save(step, partial, started, work, contents, plan)
        self._running.stall_seconds = time.perf_counter() - started
        return [*outcomes, *self.poll(wait=not self._policy.asynchronous)]

    def poll(self, *, wait: bool) -> list[SaveOutcome]:
        """Finish a save whose writers are done; with ``wait`` when they are.

        Must be called by all ranks at the same step.

        Raises:
            CheckpointError: another run has taken the run directory.
        """
        reap()
        save, looked = self._running, time.perf_counter()
        if save is None:
            if wait:
                self._finish_keeping()
            return []
        outcome = None
        while outcome is None:
            if wait:  # which has a limit of its own, so it is no hang
                PROGRESS.enter(Part.SAVE, "waiting for writers")
            outcome, moved = self._advance(save, _LOOK_SECONDS if wait else 0.0)
            if not wait and not moved:
                break
        if outcome is not None and wait:
            self._finish_keeping()
        save.stall_seconds += time.perf_counter() - looked
        if outcome is None:
            return []
        self._running = None
        self._raise_if_lost()
        seconds = time.perf_counter() - save.started
        return [replace(outcome, seconds=seconds, stall_seconds=save.stall_seconds)]

    def _advance(self, save: _Save, patience_seconds: float) -> tuple[SaveOutcome | None, bool]:
        """Look once, together; returns the outcome of a save that has ended, and whether anything has changed."""
        answer: Answer | None = Answer()
        if save.work is not None:
            answer = save.work.answer(patience_seconds)
        late = time.perf_counter() - save.started > self._policy.timeout_seconds
        failed = late if answer is None else answer.error is not None
        counts = torch.tensor(
            [failed, answer is not None], dtype=torch.int32, device=torch.cuda.current_device()
        )
        dist.all_reduce(counts)
        failures, answers = (int(count) for count in counts.tolist())
        if failures:
            return self._give_up(save, answer, failed), True
        if answers < dist.get_world_size():
            return None, False
        assert answer is not None
        if save.completing:
            told, _ = self._on_rank_zero(lambda: answer.value)
            size, retries = told or (0, 0)
            if self._local is not None:
                final = step_directory(self._root, save.step)
                self._local.start_keeping(save.partial, final, self._policy.retry_seconds)
            return self._outcome(save.step, bytes=size, retries=retries), True
        self._begin_completion(save, answer.value)
        return None, True

    def _begin_completion(self, save: _Save, mine: Written) -> None:
        gathered: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(mine, gathered)
        save.completing, save.work, save.plan = True, None, None
        if gathered is not None:
            written = gathered
            save.work = BackgroundWork(
                lambda: self._complete(save, written), "the process that completes a save"
            )

    def _write_tensors(self, partial: Path, step: int, plan: RankPlan) -> Written:
        disk, retry_seconds = Disk(self._policy.retry_seconds), self._policy.retry_seconds
        if dist.get_rank() == 0:
            assert self._state_bytes is not None
            open_directory(partial, self._state_bytes, disk)
        written = None
        if self._local is not None:
            written = self._local.write(plan.files, partial, step, dist.get_rank(), disk, retry_seconds)
        return written or write_tensor_files(plan.files, partial, dist.get_rank(), disk)

    def _finish_keeping(self) -> None:
        """Wait until the local copy of the last save is there, a while at most."""
        if self._local is not None:
            self._local.finish_keeping(_CLEAN_UP_SECONDS)

    def _complete(self, save: _Save, written: Sequence[Written]) -> tuple[int, int]:
        """Size of the checkpoint, and attempts that failed at first."""
        assert save.contents is not None
        disk = Disk(self._policy.retry_seconds)
        final = step_directory(self._root, save.step)
        check = self._owner.check if self._owner is not None else lambda: None
        size = complete(save.partial, final, save.contents, written, disk, check)
        try:
            prune(self._root, self._policy)
        except UserError as error:
            LOGGER.warning("nothing was pruned: %s", error)
        return size, disk.retries + sum(rank.retries for rank in written)

    def _give_up(self, save: _Save, answer: Answer | None, failed: bool) -> SaveOutcome:
        """End a save that has failed on any rank, and agree on what to say; collective."""
        if save.work is not None:
            save.work.kill()
        error = lost = None
        if failed:
            seconds = self._policy.timeout_seconds
            cause = answer.error if answer is not None else TimeoutError(f"not done after {seconds:g} s")
            error = _described(cause)
            lost = error if isinstance(cause, OwnershipLost) else None
        published, answers = None, True
        if save.completing and dist.get_rank() == 0:
            final = step_directory(self._root, save.step)
            looked = _within_limit(
                # It may have died after it had given the checkpoint its name.
                lambda: None if save.partial.exists() else _size_if_complete(final),
                "the process that looks what a save has left",
            )
            published, answers = (None, False) if looked is None else (looked.value, True)
        words: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(words, _Word(socket.gethostname(), error, lost, published))
        self._lost = self._lost or next((word.lost for word in words if word.lost), None)
        if words[0].published is not None:
            return self._outcome(save.step, bytes=words[0].published)
        if dist.get_rank() == 0:
            _remove(save.partial, lambda: drop_partial(save.partial), answers)
        if (local := self._local) is not None:
            _remove(local.place(save.partial), lambda: local.drop(save.partial))
        dist.barrier()
        said = "; ".join(
            f"rank {rank} on {word.host}: {word.error}" for rank, word in enumerate(words) if word.error
        )
        return self._outcome(save.step, error=said)

    def _outcome(
        self, step: int, *, bytes: int = 0, retries: int = 0, error: str | None = None
    ) -> SaveOutcome:
        return SaveOutcome(step, step_directory(self._root, step), 0.0, 0.0, bytes, retries, error)

    def _place(self, step: int) -> Path:
        if self._owner is not None:
            self._owner.check()
        token = self._owner.token if self._owner else "alone"
        # One owner may save a step twice, and what is left of the first time may still be written to.
        return place_of_partial(self._root, step, f"{token}-{secrets.token_hex(4)}")

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise CheckpointError(self._lost)

    def _on_rank_zero(self, action: Callable[[], Told]) -> tuple[Told | None, str | None]:
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


def _within_limit(action: Callable[[], object], what: str) -> Answer | None:
    """Do what touches a disk that may be dead, in a process of its own; None if the disk does not answer in time."""
    work = BackgroundWork(action, what)
    answer = work.answer(_CLEAN_UP_SECONDS)
    if answer is None:
        work.kill()
    return answer


def _remove(place: Path, action: Callable[[], object], disk_answers: bool = True) -> None:
    """Remove what a save has left, unless the disk does not answer."""
    what = "the process that removes what a save has left"
    if not disk_answers or _within_limit(action, what) is None:
        LOGGER.warning("%s could not be removed in %g s; the next save tries again", place, _CLEAN_UP_SECONDS)


def _on_host(plan: RankPlan) -> RankPlan:
    """The same with all tensors in the host's memory: a copy of those that lie on a device, a view of the others."""
    files = [[_item_on_host(item) for item in file] for file in plan.files]
    if any(isinstance(item.data, Tensor) and item.data.is_cuda for file in plan.files for item in file):
        torch.cuda.synchronize()  # the copies are under way
    return replace(plan, files=files)


def _item_on_host(item: Item) -> Item:
    if isinstance(item.data, bytes) or not item.data.is_cuda:
        return item
    return replace(item, data=item.data.to("cpu", non_blocking=True))


def _size_if_complete(directory: Path) -> int | None:
    try:
        return verify_checkpoint(directory, checksums=False)
    except CheckpointError:
        return None


def _described(error: BaseException | None) -> str:
    if isinstance(error, SaveError | HelperDied | TimeoutError | OwnershipLost):
        return str(error)
    return f"{type(error).__name__}: {error}"
