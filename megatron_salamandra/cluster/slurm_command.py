"""One way to ask a command of SLURM something: never longer than said, and with its own words where it refuses."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

from megatron_salamandra.foundation.errors import UserError

ANSWER_SECONDS = 60.0
"""A controller that schedules thousands of jobs may take most of this."""


class SlurmError(UserError):
    """SLURM did not answer, or this is no job of its."""


class SlurmSilent(SlurmError):
    """A command of SLURM did not answer in time: what it was to do may be done or not."""


class SlurmAbsent(SlurmError):
    """The command is not on this machine."""


def answer(command: Sequence[str], seconds: float | None = None) -> str:
    """Standard output of a command.

    Args:
        seconds: that it may take; :data:`ANSWER_SECONDS` unless said.
    Raises:
        SlurmAbsent: there is no such command here.
        SlurmSilent: it did not end in time; it and what it started are killed.
        SlurmError: it ended with an error, whose text is told.
    """
    most = ANSWER_SECONDS if seconds is None else seconds
    if shutil.which(command[0]) is None:
        raise SlurmAbsent(f"{command[0]} is not on this machine")
    try:
        # A session of its own: commands of some sites are scripts, and what these started must end with them.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise SlurmError(f"{' '.join(command)}: {error}") from error
    try:
        output, errors = process.communicate(timeout=most)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise SlurmSilent(f"{' '.join(command)}: no answer in {most:g} s") from None
    except BaseException:
        _kill(process)
        raise
    if process.returncode != 0:
        raise SlurmError(f"{' '.join(command)}: {errors.strip() or f'code {process.returncode}'}")
    return output


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
