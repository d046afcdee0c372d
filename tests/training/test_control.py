"""Team-mates save, look at and stop a run that is not theirs, through its directory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from local_runs import LONG, command, last_step, started, wait_until

from megatron_salamandra.cli import main
from megatron_salamandra.cluster import ControlFiles, first_failure, read_reports, read_word
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED, EXIT_USAGE
from megatron_salamandra.run_directory import RunDirectory, latest_checkpoint, read_events, step_of


def test_a_run_is_saved_looked_at_and_stopped_from_outside(
    blend: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    # Nothing is validated; a tenth of the shortest limit is how often ranks look for requests for their stacks.
    with started(command(blend, run.path, *LONG, "hangs.validation_seconds=10")) as process:
        wait_until(lambda: run.metrics.exists() and last_step(run) >= 2)
        assert main(["save", str(run.path)]) == 0
        wait_until(lambda: latest_checkpoint(run.checkpoints) is not None)
        saved = last_step(run)
        wait_until(lambda: last_step(run) > saved)  # it went on
        capsys.readouterr()
        assert main(["status", str(run.path)]) == 0
        told = capsys.readouterr().out
        assert told.startswith("running, by ") and "of 100,000" in told and "left " in told
        assert main(["stacks", str(run.path), "--seconds", "120"]) == 0
        told = capsys.readouterr().out
        assert re.search("^ranks? 0(-1)? on ", told, re.M) and "train_step.py" in told
        assert main(["stop", str(run.path), "--reason", "the disk is needed"]) == 0
        assert process.wait(timeout=120) == EXIT_STOPPED
    newest = latest_checkpoint(run.checkpoints)
    assert newest is not None and step_of(newest) == last_step(run)
    (stop,) = [event for event in read_events(run.events) if event.kind == "stop"]
    assert "the disk is needed" in stop.details["reason"]
    assert ControlFiles(run.path).asked("stop") is None  # followed once, so the next start goes on
    assert main(["stop", str(run.path)]) == EXIT_USAGE
    assert "does not run: stopped" in capsys.readouterr().err


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == EXIT_USAGE
    assert "no run here" in capsys.readouterr().err


def test_a_file_made_by_hand_asks_too(tmp_path: Path) -> None:
    control = ControlFiles(tmp_path)
    control.directory.mkdir()
    (control.directory / "stop").touch()
    asked = control.asked("stop")
    assert asked is not None and not asked.again
    control.take_up("stop")
    assert control.asked("stop") is None and control.taken_up("stop") is not None
    control.forget("stop")
    assert control.taken_up("stop") is None


def test_a_supervisor_is_told_how_a_round_ended_and_why_it_would_end_so_again(
    blend: Path, tmp_path: Path
) -> None:
    told = tmp_path / "round"
    told.mkdir()
    line = command(blend, tmp_path / "run", "training.steps=9", "training.stop_after_steps=3")
    with started(line, SALAMANDRA_ROUND_DIR=str(told)) as process:
        assert process.wait(timeout=120) == EXIT_STOPPED
    (report,) = read_reports(told)
    assert (report.rank, report.code) == (0, EXIT_STOPPED)
    assert read_word(told) == "training.stop_after_steps"


def test_the_first_rank_that_fails_is_told_with_its_message(blend: Path, tmp_path: Path) -> None:
    line = command(blend, tmp_path / "run", "training.steps=9", "parallel.tensor=2", "data.blend=none.yaml")
    with started(line, SALAMANDRA_ROUND_DIR=str(tmp_path)) as process:
        assert process.wait(timeout=120) != 0
    failure = first_failure(read_reports(tmp_path))
    assert failure is not None and "none.yaml" in failure.message
