"""A run that has saved checkpoints is not taken for one that begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.run_directory import (
    CheckpointError,
    EventLog,
    RunDirectory,
    RunDirectoryError,
    check_checkpoints_are_there,
    last_saved_step,
)


def run_with_events(path: Path, *events: tuple[str, int | None]) -> RunDirectory:
    log = EventLog(RunDirectory(path).events, enabled=True)
    for kind, step in events:
        log.write(kind, **({} if step is None else {"step": step}))
    return RunDirectory(path)


@pytest.mark.parametrize(
    ("events", "step"),
    [
        ([], None),
        ([("start", None)], None),
        ([("start", None), ("checkpoint", 5), ("checkpoint", 10), ("stop", 12)], 10),
        ([("start", None), ("checkpoint", 10), ("resume", 5)], 5),
        ([("start", None), ("checkpoint", 10), ("start", None)], None),
    ],
)
def test_events_tell_what_was_saved(
    tmp_path: Path, events: list[tuple[str, int | None]], step: int | None
) -> None:
    assert last_saved_step(run_with_events(tmp_path, *events)) == step


def test_a_run_whose_checkpoints_are_gone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run = run_with_events(tmp_path, ("start", None), ("checkpoint", 45))
    for prepare in (lambda: None, run.checkpoints.mkdir, (run.checkpoints / "step-00000045").mkdir):
        prepare()
        with pytest.raises(CheckpointError, match="has saved step 45 .*\n  bring the checkpoints back"):
            check_checkpoints_are_there(run)
    (run.checkpoints / "step-00000045" / "manifest.json").touch()
    check_checkpoints_are_there(run)


def test_a_run_that_died_before_its_first_save_may_begin_again(tmp_path: Path) -> None:
    check_checkpoints_are_there(run_with_events(tmp_path, ("start", None), ("failure", None)))


@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_what_is_no_directory_is_refused_before_training(tmp_path: Path, what: str) -> None:
    run = RunDirectory(tmp_path)
    if what == "file":
        run.checkpoints.touch()
    else:
        run.checkpoints.symlink_to(tmp_path / "unmounted")
    with pytest.raises(RunDirectoryError, match=str(run.checkpoints)):
        check_checkpoints_are_there(run)
