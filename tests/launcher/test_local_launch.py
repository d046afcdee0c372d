"""The launcher of one machine: exit codes and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
SCRIPT = """
import sys
from megatron_salamandra.local_launch import run_ranks
sys.exit(run_ranks("pretend_rank", sys.argv[1:], 2))
"""


def launch(directory: Path, behaviour: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, str(directory), behaviour]
    # Ranks inherit the path on which they find their module.
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SUPPORT)})


@pytest.mark.parametrize(
    ("behaviour", "code"), [("finish", 0), ("rank-1-fails", 3), ("rank-1-dies", 128 + signal.SIGKILL)]
)
def test_the_first_failure_is_the_exit_code_and_ends_the_others(
    tmp_path: Path, behaviour: str, code: int
) -> None:
    with launch(tmp_path, behaviour) as process:
        assert process.wait(timeout=45) == code
    assert {path.read_text() for path in tmp_path.glob("started-*")} == {"2"}


@pytest.mark.parametrize(
    ("sent", "received"),
    [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGUSR1"), ("SIGINT", "SIGTERM"), ("SIGHUP", "SIGTERM")],
)
def test_requests_to_stop_reach_every_rank_and_come_back_as_75(
    tmp_path: Path, sent: str, received: str
) -> None:
    with launch(tmp_path, "wait") as process:
        deadline = time.monotonic() + 45
        while len(list(tmp_path.glob("started-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(getattr(signal, sent))
        assert process.wait(timeout=45) == 75
    assert [(tmp_path / f"signal-{rank}").read_text() for rank in range(2)] == [received, received]


def wait_for(directory: Path, pattern: str) -> None:
    deadline = time.monotonic() + 45
    while len(list(directory.glob(pattern))) < 2:
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.05)


def test_ranks_are_asked_to_stop_when_their_launcher_is_killed(tmp_path: Path) -> None:
    with launch(tmp_path, "wait") as process:
        wait_for(tmp_path, "started-*")
        process.kill()
        process.wait()
        wait_for(tmp_path, "signal-*")
    assert [(tmp_path / f"signal-{rank}").read_text() for rank in range(2)] == ["SIGTERM", "SIGTERM"]


def test_a_hang_up_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "-c", SCRIPT, str(tmp_path), "wait"]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path, "started-*")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=45) == 75
    assert [(tmp_path / f"signal-{rank}").read_text() for rank in range(2)] == ["SIGUSR1", "SIGUSR1"]


def test_ranks_that_die_of_a_stop_before_their_first_line_have_begun_nothing(tmp_path: Path) -> None:
    with launch(tmp_path, "deaf") as process:
        wait_for(tmp_path, "started-*")
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=45) == 75
