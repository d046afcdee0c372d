"""Starting the ranks of a run on this machine, without a cluster's launcher.

``torchrun`` works as well, but it turns every worker's exit code into 1 and dies of SIGUSR1, so
it can neither tell "stopped early, start me again" (75) from a failure nor pass on the signal
that asks for a checkpoint. This launcher does both. It starts no elastic agent: a run that
fails is started again by whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from megatron_salamandra.config import RunConfig
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED
from megatron_salamandra.foundation.launch_environment import local_environment

FORWARDED = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    # Ctrl-C asks the ranks to save and leave, like every other request to stop.
    signal.SIGINT: signal.SIGTERM,
}
"""What this process receives, and what it sends to the ranks for it."""
GRACE_SECONDS = 60.0
"""How long other ranks may take to save and end once one has failed, before they are killed."""
POLL_SECONDS = 0.05


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def default_ranks(config: RunConfig) -> int:
    """One rank per GPU; without GPUs one replica of the model.

    Imports torch, because only torch knows which devices it can drive.
    """
    import torch

    model_ranks = config.parallel.tensor * config.parallel.pipeline
    if config.platform == "host" or not torch.cuda.is_available():
        return model_ranks
    return torch.cuda.device_count()


def run_ranks(module: str, arguments: Sequence[str], ranks: int) -> int:
    """Run ``python -m module arguments`` once per rank and return the exit code of the whole.

    Args:
        module: a module that reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
        arguments: its command line.
        ranks: number of processes.
    Returns:
        0 if all ranks returned 0; otherwise the code of the rank that failed first, or 75 if every
        rank that did not return 0 returned that. A rank that died of a signal counts as 128 plus
        its number. Requests to stop this process go to every rank.
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    size = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    environment = local_environment({**address, **size})
    command = [sys.executable, "-u", "-m", module, *arguments]
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(FORWARDED[signal.Signals(number)])

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        for rank in range(ranks):
            identity = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # A session of its own, so that Ctrl-C reaches this process alone, and once.
            processes.append(subprocess.Popen(command, env=environment | identity, start_new_session=True))
        return _wait_for_all(processes)
    finally:
        for process in processes:
            # With what it has started: a checkpoint's writers must not outlive their rank.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_for_all(processes: list[subprocess.Popen[bytes]]) -> int:
    first_failure = 0
    deadline: float | None = None
    running = list(processes)
    while running:
        for process in list(running):
            code = process.poll()
            if code is None:
                continue
            running.remove(process)
            if code and first_failure in (0, EXIT_STOPPED):
                first_failure = code if code > 0 else 128 - code
                deadline = time.monotonic() + GRACE_SECONDS
                if first_failure != EXIT_STOPPED:  # those that stop together need no telling
                    for other in running:
                        other.send_signal(signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            # The others wait for a rank that is gone.
            for process in running:
                process.kill()
        time.sleep(POLL_SECONDS)
    return first_failure
