"""Events of steps that are repeated after a crash are told once, and what happened to the run stays told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.foundation.json_files import append_json_lines
from megatron_salamandra.run_directory import EventLog, read_events


def told(path: Path) -> list[tuple[str, Any]]:
    return [(event.kind, event.details.get("step")) for event in read_events(path)]


def write(path: Path, *events: tuple[str, int | None]) -> EventLog:
    append_json_lines(
        path,
        [{"time": "", "event": kind, **({} if step is None else {"step": step})} for kind, step in events],
    )
    return EventLog(path, enabled=True)


START, CRASH = ("start", None), ("failure", None)


@pytest.mark.parametrize(
    ("events", "step", "kept"),
    [
        # Several crashes between saves: only what is repeated goes.
        (
            [START, ("skip", 2), ("checkpoint", 4), ("skip", 5), CRASH, ("resume", 4), ("skip", 5), CRASH],
            4,
            [0, 1, 2, 4, 5, 7],
        ),
        ([START, ("skip", 1), ("incident", 2), CRASH, ("start", None), ("phase", 2)], 0, [0, 3, 4]),
        # The checkpoint of step 6 is damaged, so it is saved again.
        ([START, ("checkpoint", 4), ("checkpoint", 6), ("end", 6)], 4, [0, 1, 3]),
        # In the background: step 5 is done before step 4 is on disk.
        ([START, ("skip", 5), ("checkpoint", 4), ("skip", 6)], 4, [0, 2]),
        # A roll back that the checkpoint has behind it is past; one that it has not comes again.
        (
            [START, ("checkpoint", 4), ("incident", 7), ("roll_back", 7), ("checkpoint", 6), ("skip", 7)],
            6,
            [0, 1, 2, 3, 4],
        ),
        ([START, ("checkpoint", 4), ("incident", 7), ("roll_back", 7), ("skip", 5)], 4, [0, 1]),
        # The run was killed before it could tell of the checkpoint.
        ([START, ("incident", 7), ("roll_back", 7), ("skip", 8)], 6, [0, 1, 2]),
        (
            [START, ("stop", 5), ("failure", 6), ("straggler", 7), ("checkpoint_passed_over", None)],
            4,
            [0, 1, 2, 3, 4],
        ),
    ],
)
def test_what_is_repeated_is_forgotten_and_history_is_not(
    tmp_path: Path, events: list[tuple[str, int | None]], step: int, kept: list[int]
) -> None:
    log = write(tmp_path / "events.jsonl", *events)
    log.forget_repeated(step)
    assert told(tmp_path / "events.jsonl") == [events[number] for number in kept]
    log.forget_repeated(step)
    assert told(tmp_path / "events.jsonl") == [events[number] for number in kept]


def test_a_checkpoint_is_told_once_whether_or_not_its_run_lived_to_tell(tmp_path: Path) -> None:
    log = write(tmp_path / "events.jsonl", START, ("checkpoint", 4))
    for step in (4, 6, 6):
        log.tell_untold_checkpoint(step)
    assert told(tmp_path / "events.jsonl") == [START, ("checkpoint", 4), ("checkpoint", 6)]


def test_a_torn_line_stays_where_it_is_and_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = write(path, START, ("checkpoint", 4), ("skip", 5))
    with path.open("ab") as stream:
        stream.write(b'{"event": "skip", "st')
    log.forget_repeated(4)
    log.write("resume", step=4)
    assert told(path) == [START, ("checkpoint", 4), ("resume", 4)]


def test_other_ranks_rewrite_nothing(tmp_path: Path) -> None:
    write(tmp_path / "events.jsonl", START, ("skip", 5))
    other = EventLog(tmp_path / "events.jsonl", enabled=False)
    other.forget_repeated(4)
    other.tell_untold_checkpoint(4)
    assert told(tmp_path / "events.jsonl") == [START, ("skip", 5)]
