"""Tasks that tests of the worker pool run in other processes."""

from __future__ import annotations

import os
import signal
import time

from salamandra_data.errors import DataError
from salamandra_data.execution import Counters

Task = tuple[str, float]
"""What to do, and its number: of seconds, of a signal or an exit code."""


def do(state: str, counters: Counters, task: Task) -> str:
    """Sleep, fail or end the process, as ``task`` says."""
    what, number = task
    if what == "sleep":
        time.sleep(number)
    elif what == "work":
        until = time.monotonic() + number
        while time.monotonic() < until:
            counters.add(1, 0, 0)
            time.sleep(0.01)
    elif what == "fail":
        raise DataError(f"{state}: task {number:g} failed")
    elif what == "bug":
        raise KeyError(number)
    elif what == "signal":
        os.kill(os.getpid(), int(number))
        signal.pause()
    elif what == "exit":
        os._exit(int(number))
    return f"{state} {what} {number:g}"
