"""Who says what a user can mend: one rank, once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from local_runs import command

from megatron_salamandra.run_directory import RunDirectory, read_events

SUPPORT = Path(__file__).parents[1] / "support"
DAMAGED = "a shard is damaged\n  copy it again\n"


@pytest.mark.parametrize(("ranks", "in_step"), [([1], True), ([0, 1], False)])
def test_an_error_is_said_once_by_rank_0_or_by_the_rank_that_finds_it_alone(
    blend: Path, tmp_path: Path, ranks: list[int], in_step: bool
) -> None:
    callback = {"path": "sample_callbacks:Refuses", "options": {"ranks": ranks, "in_step": in_step}}
    finished = subprocess.run(
        command(blend, tmp_path / "run", f"callbacks={json.dumps([callback])}"),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        timeout=200,
    )
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count(DAMAGED) == 1
    speaker = "" if 0 in ranks else f"rank 1 on {socket.gethostname()}: "
    assert (speaker + DAMAGED) in finished.stderr
    failures = [
        event for event in read_events(RunDirectory(tmp_path / "run").events) if event.kind == "failure"
    ]
    assert [event.details["rank"] for event in failures] == [min(ranks)]
