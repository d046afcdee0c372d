"""One way to run a command of the system: never longer than said, and with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_GONE_SECONDS = 2.0
"""After SIGKILL; a process that is in the kernel for good is left behind."""


@dataclass(frozen=True)
class Ended:
    """What became of a command.

    Attributes:
        code: its exit code, or minus the number of the signal that ended it; None if it did not end in time.
        output: what it printed.
        errors: what it printed to stderr; empty where that was merged into ``output``.
    """

    code: int | None
    output: str
    errors: str


def run_command(command: Sequence[str], seconds: float, *, merged: bool = False) -> Ended:
    """Run a command with nothing on stdin. If it does not end in time, it and what it started are killed.

    Args:
        seconds: that it may take.
        merged: stderr comes among ``output``.
    Raises:
        OSError: there is no such command, or it cannot be started.
    """
    # A session of its own: commands of some sites are scripts, and what these started must end with them.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        start_new_session=True,
    )
    in_time = True
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        in_time = False
        _kill(process)
        try:
            output, errors = process.communicate(timeout=_GONE_SECONDS)
        except subprocess.TimeoutExpired as error:
            output, errors = error.stdout or b"", error.stderr or b""
    except BaseException:
        _kill(process)
        raise
    return Ended(process.returncode if in_time else None, _text(output), _text(errors))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(printed: bytes | None) -> str:
    return (printed or b"").decode(errors="replace")
