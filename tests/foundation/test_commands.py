"""Commands of the system: never longer than said, and with all that they started."""

from __future__ import annotations

import signal
import sys
import time

import pytest
from processes import is_running

from megatron_salamandra.foundation.commands import Ended, run_command


def test_a_command_tells_code_output_and_errors() -> None:
    words = ["sh", "-c", "printf 'caf\\303\\251 \\377'; echo wrong >&2; exit 3"]
    assert run_command(words, 60) == Ended(3, "café \ufffd", "wrong\n")
    assert run_command(words, 60, merged=True) == Ended(3, "café \ufffdwrong\n", "")
    assert run_command(["sh", "-c", "kill -9 $$"], 60).code == -signal.SIGKILL
    assert run_command([sys.executable, "-c", "input()"], 60).code == 1  # nothing is on stdin


def test_a_command_that_hangs_ends_with_what_it_started_and_what_it_said_is_kept() -> None:
    """The child holds the pipe open, so that whoever kills the parent alone waits for ever."""
    done = run_command(["sh", "-c", "sleep 600 & echo $!; wait"], 0.5)
    assert (done.code, done.errors) == (None, "")
    child = int(done.output)
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)


def test_a_command_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        run_command(["no-such-command"], 60)
