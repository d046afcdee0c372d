"""Ranks that outlive a test, made from a process that has imported torch and Megatron-Core: once per session, not once
per rank and case.

A pool starts worker processes on demand. A job is a picklable function that every rank of a
world runs with the launcher's environment variables set; each job joins and leaves its own
process group. Results come back in order of rank.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.world import free_port

JOB_TIMEOUT_SECONDS = 600.0
JOBS_PER_WORKER = 8
"""Workers are replaced after so many jobs: gloo leaves threads behind that wake all the time, and in the
end slow down everything."""
IMPORTED_ONCE = (
    "megatron.core.datasets.indexed_dataset",
    "megatron.core.distributed",
    "megatron.core.models.gpt",
    "megatron.core.optimizer",
    "megatron_salamandra.model",
    "megatron_salamandra.optim",
    "megatron_salamandra.train",
    "megatron_salamandra.training.trainer",
    "torch.distributed.checkpoint",
    "torch.utils.tensorboard",
)
"""What every rank needs. None of it starts a thread, so that a process that has it can be forked."""


def _serve(pipe: Connection) -> None:
    # Checkpoint writers and their queues are processes of this one's group, and end with it.
    os.setpgrp()
    os.environ["OMP_NUM_THREADS"] = "1"
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        function, arguments, environment = job
        os.environ.update(environment)
        try:
            pipe.send((True, function(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))


class RankFailure(AssertionError):
    """A rank raised; the message holds its traceback."""


class RankPool:
    """A set of rank processes that runs one job at a time."""

    def __init__(self) -> None:
        # Where there is a GPU, what is imported may look at it, and no fork of such a process can use it.
        self._context = mp.get_context("spawn" if Path("/dev/nvidiactl").exists() else "forkserver")
        self._context.set_forkserver_preload(list(IMPORTED_ONCE))
        self._workers: list[tuple[Any, Connection]] = []
        self._jobs = 0

    def run(self, ranks: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run ``function(*arguments)`` on ``ranks`` ranks and return their results.

        Raises:
            RankFailure: a rank raised or none answered in time; the pool is started afresh then,
                because the other ranks may be stuck in a collective.
        """
        self._jobs += 1
        if self._jobs % JOBS_PER_WORKER == 0:
            self.close()
        while len(self._workers) < ranks:
            self._start_worker()
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
        pipes = [pipe for _, pipe in self._workers[:ranks]]
        for rank, pipe in enumerate(pipes):
            environment = address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            pipe.send((function, arguments, environment))
        results: dict[int, Any] = {}
        while len(results) < ranks:
            waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
            ready = wait(waiting, timeout=JOB_TIMEOUT_SECONDS)
            if not ready:
                self.close()
                raise RankFailure(f"no answer from {len(waiting)} of {ranks} ranks")
            for pipe in ready:
                rank = pipes.index(pipe)  # type: ignore[arg-type]
                succeeded, value = pipes[rank].recv()
                if not succeeded:
                    self.close()
                    raise RankFailure(f"rank {rank} of {ranks}:\n{value}")
                results[rank] = value
        return [results[rank] for rank in range(ranks)]

    def _start_worker(self) -> None:
        ours, theirs = self._context.Pipe()
        # Not a daemon: checkpoint writers are processes of their own.
        process = self._context.Process(target=_serve, args=(theirs,))
        process.start()
        theirs.close()
        self._workers.append((process, ours))

    def close(self) -> None:
        """End all workers."""
        for _, pipe in self._workers:
            pipe.close()
        for process, _ in self._workers:
            process.join(timeout=5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
        self._workers.clear()
