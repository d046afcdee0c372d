"""A process beside training is missed when it dies, and never outlives what started it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_running

from megatron_salamandra.checkpoint import background
from megatron_salamandra.checkpoint.background import BackgroundWork, HelperDied, reap

GENEROUS_SECONDS = 60.0


class GoesInAndNotOut(Exception):
    """Can be pickled and not unpickled, like some exceptions of libraries."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def test_it_sees_memory_as_it_was_and_answers() -> None:
    values = [1, 2]
    work = BackgroundWork(lambda: sum(values), "adding")
    values.append(100)
    answer = work.answer(GENEROUS_SECONDS)
    assert answer is not None and answer.error is None
    assert answer.value == 3


def test_a_long_answer_needs_nobody_who_takes_it() -> None:
    work = BackgroundWork(lambda: b"x" * (8 << 20), "a long answer")
    ended = os.waitid(os.P_PID, work.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None and ended.si_status == 0
    answer = work.answer()
    assert answer is not None and len(answer.value) == 8 << 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGALRM])
def test_a_process_that_is_killed_is_an_error_that_names_it(number: signal.Signals) -> None:
    work = BackgroundWork(signal.pause, "the writer")
    os.kill(work.pid, number)
    answer = work.answer(GENEROUS_SECONDS)
    assert answer is not None and isinstance(answer.error, HelperDied)
    assert f"the writer (process {work.pid}) was killed by signal {int(number)}" in str(answer.error)


def test_a_process_that_leaves_without_a_word_is_an_error() -> None:
    answer = BackgroundWork(lambda: os._exit(3), "the writer").answer(GENEROUS_SECONDS)
    assert answer is not None and "ended with code 3" in str(answer.error)
    answer = BackgroundWork(lambda: os._exit(0), "the writer").answer(GENEROUS_SECONDS)
    assert answer is not None and isinstance(answer.error, HelperDied)


def test_what_it_raises_comes_back_even_if_pickle_cannot_carry_it() -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    def fail_strangely() -> None:
        raise GoesInAndNotOut("something", "strange")

    answer = BackgroundWork(fail, "the writer").answer(GENEROUS_SECONDS)
    assert answer is not None and isinstance(answer.error, OSError) and answer.error.errno == 5
    answer = BackgroundWork(fail_strangely, "the writer").answer(GENEROUS_SECONDS)
    assert answer is not None and "GoesInAndNotOut" in str(answer.error)


def test_requests_to_stop_do_not_reach_it_and_a_stopped_one_can_be_ended() -> None:
    work = BackgroundWork(lambda: time.sleep(0.3), "the writer")
    time_of_start(work.pid)
    answer = work.answer(GENEROUS_SECONDS)
    assert answer is not None and answer.error is None
    stopped = BackgroundWork(signal.pause, "the writer")
    os.kill(stopped.pid, signal.SIGSTOP)
    assert stopped.answer() is None
    stopped.kill()
    answer = stopped.answer(GENEROUS_SECONDS)
    assert answer is not None and "SIGKILL" in str(answer.error)


def time_of_start(pid: int) -> None:
    """Signal it once it has begun to ignore SIGTERM."""
    until = time.monotonic() + GENEROUS_SECONDS
    mask = 1 << (signal.SIGTERM - 1)
    while time.monotonic() < until:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        ignored = int(next(line.split()[1] for line in lines if line.startswith("SigIgn")), 16)
        if ignored & mask:
            os.kill(pid, signal.SIGTERM)
            return
        time.sleep(0.001)


PARENT = """
import signal, sys
from megatron_salamandra.checkpoint.background import BackgroundWork
print(BackgroundWork(signal.pause, "the writer").pid, flush=True)
signal.pause()
"""


def test_it_ends_with_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + GENEROUS_SECONDS
    while is_running(pid):
        assert time.monotonic() < until, f"process {pid} outlives its parent"
        time.sleep(0.01)


def test_a_process_that_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    opened = sorted(os.listdir("/proc/self/fd"))
    work = BackgroundWork(signal.pause, "the writer")
    assert sorted(os.listdir("/proc/self/fd")) == opened
    answer = work.answer()
    assert answer is not None and "could not be started" in str(answer.error)
    work.kill()


def test_one_that_ends_long_after_it_was_killed_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a disk; here the kill is held back."""
    work = BackgroundWork(signal.pause, "the writer")
    kill = os.kill
    with monkeypatch.context() as patched:
        patched.setattr(background, "_DEATH_SECONDS", 0.0)
        patched.setattr(os, "kill", lambda pid, number: None)
        work.kill()
    reap()
    assert is_running(work.pid)
    kill(work.pid, signal.SIGKILL)
    until = time.monotonic() + GENEROUS_SECONDS
    while Path(f"/proc/{work.pid}").exists():
        assert time.monotonic() < until, "it stays a zombie"
        reap()
        time.sleep(0.01)
    assert work not in background._LEFT
