"""What ``salamandra status`` says of a run, from its records alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.cluster import (
    ControlFiles,
    Decision,
    JobNote,
    NoRun,
    Outcome,
    RankFailure,
    Round,
    RoundBook,
    run_history,
    run_status,
    status_text,
)
from megatron_salamandra.cluster.rounds import Action, Cause
from megatron_salamandra.config import load_run_config
from megatron_salamandra.foundation.json_files import append_json_lines, write_json
from megatron_salamandra.run_directory import Event, RunDirectory
from megatron_salamandra.run_directory.owner_record import OwnerRecord


def at(minute: int, kind: str, **details: Any) -> dict[str, Any]:
    return {"time": f"2026-01-02T03:{minute:02d}:00.000+00:00", "event": kind, **details}


def write_run(path: Path, events: list[dict[str, Any]], *, steps: int = 0, length: int = 100) -> Path:
    """A run directory with its configuration, events, and ``steps`` steps of 2 s with 1 s between them."""
    path.mkdir(parents=True)
    RunDirectory(path).config.write_text(load_run_config("tiny", [f"training.steps={length}"]).to_yaml())
    append_json_lines(RunDirectory(path).events, events)
    append_json_lines(
        RunDirectory(path).metrics,
        [
            {
                "step": step,
                "loss": 5.0,
                "tokens": 10 * step,
                "tokens_per_second": 5.0,
                "seconds": {"step": 2.0},
                "seconds_between_steps": {"checkpoint": 1.0},
            }
            for step in range(1, steps + 1)
        ],
    )
    return path


def a_round(number: int, minutes: tuple[int, int], cause: Cause, action: Action, **outcome: Any) -> Round:
    started, ended = (f"2026-01-02T03:{minute:02d}:00+00:00" for minute in minutes)
    failure = RankFailure(3, "node2", 1, "RuntimeError: <b>no</b>")
    return Round(
        number,
        "77",
        started,
        ended,
        ("node1", "node2"),
        Outcome(cause, 1, **{"first_step": 0, "last_step": 0, "saved_step": 0, **outcome}, failure=failure),
        Decision(action, f"{cause.value} after step {outcome.get('last_step', 0)}"),
    )


@pytest.mark.parametrize(
    ("events", "steps", "expected"),
    [
        ([], 0, "never started"),
        ([at(0, "start"), at(1, "end", step=100, exit_code=0)], 100, "finished"),
        ([at(0, "start"), at(1, "end", step=40, exit_code=75)], 40, "stopped"),
        ([at(0, "start"), at(1, "failure", rank=1, error="no")], 40, "failed"),
        ([at(0, "start"), at(1, "checkpoint", step=10, seconds=1.0)], 40, "failed"),
    ],
)
def test_state_follows_from_how_the_last_start_ended(
    tmp_path: Path, events: list[dict[str, Any]], steps: int, expected: str
) -> None:
    assert run_status(write_run(tmp_path / "run", events, steps=steps)).state == expected


@pytest.mark.parametrize(
    ("action", "expected"),
    [(Action.REQUEUE, "waiting"), (Action.RESTART, "waiting"), (Action.END, "stopped")],
)
def test_a_run_waits_for_its_next_round_unless_the_last_decision_ended_it(
    tmp_path: Path, action: Action, expected: str
) -> None:
    run = write_run(tmp_path / "run", [at(0, "start"), at(5, "end", step=7, exit_code=75)], steps=7)
    RoundBook(run).append(a_round(1, (0, 5), Cause.STOPPED, action, last_step=7, saved_step=7))
    assert run_status(run).state == expected


def test_an_owner_elsewhere_runs_while_its_heart_beats_and_is_lost_after(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [at(0, "start")], steps=10)
    owner = replace(OwnerRecord.of_this_process(), host="node9", boot="another", job="77")
    write_json(RunDirectory(run).owner, owner.to_json())
    ControlFiles(run).note_job(JobNote("77", ends=4e9))
    status = run_status(run)
    assert (status.state, status.job) == ("running", JobNote("77", 4e9))
    assert status.left_seconds == pytest.approx(90 * 3.0)  # a step with what passes between two
    assert status.limit_seconds is not None and status.limit_seconds > 1e8
    assert "time limit of job 77" in status_text(status)
    os.utime(RunDirectory(run).owner, (1e9, 1e9))
    assert run_status(run).state == "lost"


def test_what_happened_is_told_once_with_what_it_cost() -> None:
    events = [
        at(1, "start"),
        at(5, "failure", rank=3, error="RuntimeError: no"),  # of the round below: told there
        at(9, "resume", step=10, reached=25),
        at(12, "failure", what="checkpoint", step=30, error="full"),
        at(13, "slow_rank", step=31, rank=7, host="node2", ratio=1.5),  # a kind that is not known here
        at(14, "roll_back", step=36, to_step=20, reason="spike"),
        at(30, "resume", step=20, reached=40),
        at(31, "end", step=50, exit_code=0),
    ]
    rounds = [a_round(1, (0, 5), Cause.CRASH, Action.RESTART, last_step=25, saved_step=10)]
    past = run_history(
        [
            Event(e["time"], e["event"], {k: v for k, v in e.items() if k not in ("time", "event")})
            for e in events
        ],
        rounds,
        lives=False,
    )
    assert [(found.kind, found.step, found.repeated_steps) for found in past.incidents] == [
        ("crash", 25, 15),
        ("checkpoint failed", 30, 0),
        ("slow rank", 31, 0),
        ("roll back", 36, 15),
        ("broken off", 40, 20),
    ]
    assert past.incidents[0].idle_seconds == 4 * 60
    assert past.incidents[2].text == "rank 7, host node2, ratio 1.5"
    assert past.repeated_steps == 15 + 20
    assert past.idle_seconds == (4 + 16) * 60


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "events.jsonl"])
@pytest.mark.parametrize("contents", [None, b"", b"\x00\xff{[", b'{"step": null, "event": 3}\n{"step"'])
def test_a_damaged_run_has_a_status_all_the_same(tmp_path: Path, name: str, contents: bytes | None) -> None:
    run = write_run(tmp_path / "run", [at(0, "start"), at(1, "end", step=100, exit_code=0)], steps=100)
    if contents is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(contents)
    status = run_status(run)
    assert status_text(status)
    json.dumps(status.to_dict(), allow_nan=False)


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match="no run here"):
        run_status(tmp_path)


def test_the_command_prints_json_and_imports_little(tmp_path: Path) -> None:
    """It is asked again and again, on login nodes with slow disks, so modules are what its time is."""
    events = [at(0, "start", steps=100), at(1, "end", step=100, exit_code=0)]
    run = write_run(tmp_path / "run", events, steps=100)
    program = (
        "import sys; from megatron_salamandra.cli import main; code = main(['status', '--json', sys.argv[1]]); "
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=True
    )
    values = json.loads(done.stdout)
    assert (values["state"], values["step"], values["loss"], values["tokens"]) == ("finished", 100, 5.0, 1000)
    imported = set(done.stderr.split())
    heavy = ("torch", "numpy", "megatron", "salamandra_data", "megatron_salamandra.config", "asyncio")
    assert not imported & {*heavy, "megatron_salamandra.training", "megatron_salamandra.hangs"}
    own = {name for name in imported if name.startswith("megatron_salamandra.")}
    assert len(own) <= 42, sorted(own)


@pytest.mark.parametrize(("said", "expected"), [(70, 70), (None, 100), ("70", 100)])
def test_the_length_is_what_the_last_start_said_else_the_configurations(
    tmp_path: Path, said: Any, expected: int
) -> None:
    events = [at(0, "start", steps=40), at(1, "end", step=40, exit_code=75), at(2, "resume", steps=said)]
    assert run_status(write_run(tmp_path / "run", events, steps=40)).steps == expected
