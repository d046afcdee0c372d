"""The first lines of the ``salamandra`` command: a signal that comes while it imports the rest ends it in good order.

Imports nothing but the standard library's smallest parts, so that this window is a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130
_STOPPED = 75
"""As in ``foundation/exit_codes.py``, which is not imported yet."""


def command() -> NoReturn:
    """The whole work of a process: ``megatron_salamandra.cli.command``, deaf to nothing while that is imported."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # of processes that it starts; see foundation/module_path.py
    stops = ("SIGTERM", "SIGUSR1", "SIGHUP") if sys.argv[1:2] == ["train"] else ()
    for name in ("SIGINT", *stops):
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:  # what nohup and the like ignore stays ignored
            signal.signal(number, _leave)
    from megatron_salamandra import cli

    try:
        cli.command()
    finally:
        for name in stops:  # everything is done and said: a late signal must not give it another exit code
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing is begun: a run that is to stop may be started again, and an interrupted command has done nothing."""
    interrupted = number == signal.SIGINT
    with contextlib.suppress(OSError):
        name = signal.Signals(number).name
        text = "\ninterrupted" if interrupted else f"stopped by {name} before anything was begun"
        os.write(2, f"{text}\n".encode())
    os._exit(_INTERRUPTED if interrupted else _STOPPED)
