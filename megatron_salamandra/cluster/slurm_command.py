"""One way to ask a command of SLURM something: never longer than said, and with its own words where it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from megatron_salamandra.foundation.commands import run_command
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
    text = " ".join(command)
    try:
        done = run_command(command, most)
    except OSError as error:
        raise SlurmError(f"{text}: {error}") from error
    if done.code is None:
        raise SlurmSilent(f"{text}: no answer in {most:g} s")
    if done.code != 0:
        raise SlurmError(f"{text}: {done.errors.strip() or f'code {done.code}'}")
    return done.output
