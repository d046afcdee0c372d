"""Two ranks without a launcher, forked from a process that has imported torch: a start costs a second."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disturbed_runs import GONE_SECONDS, SETTINGS, Broken
from kill_points import KillPoint, install
from rank_jobs import SMALL_CONFIG
from rank_pool import IMPORTED_ONCE

from megatron_salamandra.foundation.world import free_port

RANKS = 2
SIGNALLED = 128


class ForkedRanks:
    """Starts the small model's ranks."""

    def __init__(self) -> None:
        self._context = mp.get_context("forkserver")
        self._context.set_forkserver_preload([*IMPORTED_ONCE])

    def start(
        self, blend: Path, run: Path, point: KillPoint | None, *overrides: str, seconds: float = 600.0
    ) -> int:
        """Run both ranks to their end; 0 if both ended well, else the first other code.

        Raises:
            Broken: they do not end, or a process stays behind.
        """
        run.parent.mkdir(parents=True, exist_ok=True)
        port = free_port()
        arguments = [str(SMALL_CONFIG), f"data.blend={blend}", f"run_dir={run}", *SETTINGS, *overrides]
        ranks = [
            # Not daemons: writers of checkpoints are processes of their own.
            self._context.Process(target=_rank, args=(rank, port, arguments, point, f"{run}.log"))
            for rank in range(RANKS)
        ]
        for rank in ranks:
            rank.start()
        deadline = time.monotonic() + seconds
        for rank in ranks:
            rank.join(max(0.0, deadline - time.monotonic()))
        hung = [number for number, rank in enumerate(ranks) if rank.is_alive()]
        groups = [rank.pid for rank in ranks if rank.pid is not None]
        gone = time.monotonic() + (0.0 if hung else GONE_SECONDS)
        while left := [pid for group in groups for pid in _living_of_group(group)]:
            if time.monotonic() >= gone:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                for rank in ranks:
                    rank.join()
                if hung:
                    raise Broken(f"ranks {hung} have not ended after {seconds:.0f} s")
                raise Broken(f"{len(left)} processes are left behind")
            time.sleep(0.05)
        return next((_code(rank) for rank in ranks if rank.exitcode), 0)


def _code(rank: Any) -> int:
    return SIGNALLED - rank.exitcode if rank.exitcode < 0 else int(rank.exitcode)


def _rank(rank: int, port: int, arguments: Sequence[str], point: KillPoint | None, log: str) -> None:
    os.setpgrp()
    with open(log, "ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    from megatron_salamandra.train import leave_process, run_as_process

    if point is not None:
        install(point, rank)
    code = run_as_process(arguments)
    sys.stdout.flush()
    # What a rank that has done its work leaves to multiprocessing's own exit ends as it does for a command.
    if code:
        leave_process(code)


def _living_of_group(group: int) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal():
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in ("Z", "X"):
                    found.append(int(path.name))
        except OSError:
            continue
    return found
