"""What differs between the versions of Megatron-Core we support (0.16.1 to 0.19), in one place."""

from __future__ import annotations

import inspect
import signal
from multiprocessing import get_context, resource_tracker
from multiprocessing.managers import SyncManager
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import filesystem_async

from megatron_salamandra.foundation.signals import WATCHED_SIGNALS, leave_signals_to_parent


def background_save_options() -> dict[str, Any]:
    """Arguments that make ``dist_checkpointing.save`` use Megatron-Core's own background writer.

    From 0.17 on the default writer is that of nvidia-resiliency-ext, a package we do not need;
    before, the argument does not exist.
    """
    known = inspect.signature(dist_checkpointing.save).parameters
    return {"async_strategy": "mcore"} if "async_strategy" in known else {}


def start_result_queue() -> None:
    """Start the process through which the writers of checkpoints report, such that signals to stop do not reach it.

    Megatron-Core starts one of its own at the first save and keeps it. Where SLURM or a terminal signals all processes
    of a task, the signal that asks for a save kills it: that save fails, and so does every later one.
    """
    if getattr(filesystem_async, "_results_queue", ...) is not None:
        return  # started already, or a version that has none
    resource_tracker.ensure_running()  # its start would let signals through again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED_SIGNALS)  # the new process inherits it
    try:
        manager = SyncManager(ctx=get_context("spawn"))
        manager.start(initializer=leave_signals_to_parent)
        filesystem_async._results_queue = manager.Queue()  # which keeps the manager alive
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
