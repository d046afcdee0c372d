"""A rank whose error nobody answers is gone at once: nothing waits for what the interpreter's shutdown waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A thread that never ends stands for a communicator that waits for ranks which never come.
PROGRAM = """
import threading
from megatron_salamandra import train

def fail(*given, **named):
    threading.Thread(target=threading.Event().wait).start()
    raise {error}("out of memory on this device")

train.main = fail
train.leave_process(train.run_as_process([]))
"""


@pytest.mark.parametrize("error", ["RuntimeError", "BaseException"])
def test_an_unexpected_error_ends_the_process_with_its_traceback(error: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(error=error)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert f"{error}: out of memory on this device" in ended.stderr
