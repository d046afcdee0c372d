"""The ranks of one machine as child processes.

``torchrun`` does the same, but reports exit code 75, which means that everything is saved, as a crash with a
traceback, and replaces it by 1. The half-way stop of the quick start needs to see it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

QUIET_LOCAL_RANKS = {
    "OMP_NUM_THREADS": "1",
    # All ranks are here: gloo need not resolve this machine's name, which on some laptops fails.
    "GLOO_SOCKET_IFNAME": "lo",
    # Megatron-Core warns on every import that Transformer Engine and Apex are missing.
    "PYTHONWARNINGS": "ignore",
}
"""Defaults for the environment of ranks that all run on this machine."""

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 60.0


def run_ranks(arguments: Sequence[str], ranks: int) -> int:
    """Run ``python -m megatron_salamandra.train`` with ``arguments`` on every rank and wait.

    Their output goes to ours. When one rank fails the others are ended. When this process is
    interrupted the ranks are asked to save and stop, waited for, and then it is interrupted.

    Returns:
        The common exit code, or the code of the first rank that failed.
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(ranks)}
    environment = {**QUIET_LOCAL_RANKS, **os.environ, **address}
    command = [sys.executable, "-u", "-m", "megatron_salamandra.train", *arguments]
    with _termination_as_interrupt():
        processes = [
            # An own session, so that Ctrl-C reaches us alone and the ranks are stopped in order.
            subprocess.Popen(
                command,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                start_new_session=True,
            )
            for rank in range(ranks)
        ]
        try:
            return _wait(processes)
        except KeyboardInterrupt:
            print("\ninterrupted: asking the ranks to save and stop", file=sys.stderr, flush=True)
            raise
        finally:
            _end(processes)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    while True:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes):
            return next((code for code in codes if code), 0)
        if crashed := next((code for code in codes if code not in (None, 0, 75)), None):
            return crashed
        time.sleep(_POLL_SECONDS)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask what still runs to save and leave, and kill what does not within a minute."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
