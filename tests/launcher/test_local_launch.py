"""The launcher of one machine: exit codes and signals."""

from __future__ import annotations

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
    return subprocess.Popen(command, cwd=SUPPORT)


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
    ("sent", "received"), [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGUSR1"), ("SIGINT", "SIGTERM")]
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
