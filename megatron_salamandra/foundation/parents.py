"""Processes that end with the process that started them, however that ended. Linux only: elsewhere nothing happens.

Run as a program, ``python parents.py PARENT SIGNAL COMMAND...`` becomes COMMAND, bound to its parent. It imports the
standard library alone, so that this costs a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send ``number`` to this process when the thread that started it ends; holds through exec."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def bound_command(command: Sequence[str], number: signal.Signals) -> list[str]:
    """A command line that runs ``command`` in the same process, bound to the caller.

    Args:
        number: what the kernel sends when the caller ends.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(number)), *command]


_bound_forks = False


def bind_forks() -> None:
    """From here on processes that this one forks are killed when it ends, and so are those that they fork."""
    global _bound_forks
    if not _bound_forks:
        os.register_at_fork(after_in_child=end_with_parent)
        _bound_forks = True


def _main() -> None:
    parent, number, *command = sys.argv[1:]
    end_with_parent(int(number))
    if os.getppid() != int(parent):  # it ended before the kernel was told
        signal.raise_signal(int(number))
    os.execv(command[0], command)


if __name__ == "__main__":
    _main()
