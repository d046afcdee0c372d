"""A rank's watchdog, in this process: its end is a function call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_salamandra.foundation.exit_codes import EXIT_HUNG
from megatron_salamandra.hangs import PROGRESS, Limits, Part, RoundFiles, Watchdog
from megatron_salamandra.run_directory import RunDirectory

FOR_EVER = Limits(None, None, None, None)


class Watched:
    """A watchdog with short limits, and what it did."""

    def __init__(self, path: Path, limits: Limits, *, rank: int = 0) -> None:
        self.run = RunDirectory(path)
        self.files = RoundFiles(self.run.round("test"))
        self.words: list[str] = []
        self.codes: list[int] = []
        self.ended = threading.Event()
        self.dog = Watchdog(self.run, self.files, rank, 2, limits, self.words.append, end=self._end)

    def _end(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    PROGRESS.restart()
    made: list[Watched] = []

    def make(limits: Limits, **more: int) -> Watched:
        made.append(Watched(tmp_path, limits, **more))
        made[-1].dog.__enter__()
        return made[-1]

    yield make
    for one in made:
        one.dog.stop()
    PROGRESS.restart()


def eventually(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_step_that_overstays_ends_the_rank_with_its_stacks(watched: Callable[..., Watched]) -> None:
    PROGRESS.enter(Part.REDUCE, "gradients", step=12)
    PROGRESS.step_done(0.001)
    one = watched(Limits(60.0, 0.3, 60.0, 60.0))
    assert one.ended.wait(60)
    assert one.codes[0] == EXIT_HUNG
    assert "in reduce of step 12 (gradients)" in one.words[0]
    assert one.files.marked == one.dog.found
    stacks = one.files.stacks_of(0).read_text()
    assert "test_watchdog.py" in stacks and "in reduce of step 12" in stacks
    assert one.run.stacks_wanted.exists()  # those of the others as well


def test_a_slow_start_a_save_and_a_validation_have_times_of_their_own(
    watched: Callable[..., Watched],
) -> None:
    one = watched(Limits(None, 0.2, None, None))
    for part in (Part.START, Part.DATA, Part.VALIDATION, Part.SAVE, Part.LOAD):  # no step is done yet
        PROGRESS.enter(part)
        assert not one.ended.wait(0.35)
    PROGRESS.step_done(0.001)
    for part in (Part.VALIDATION, Part.SAVE, Part.LOAD):
        PROGRESS.enter(part)
        assert not one.ended.wait(0.35)
    PROGRESS.enter(Part.CALLBACKS, "Endless")
    assert one.ended.wait(60)


def test_each_limit_ends_what_it_is_for(watched: Callable[..., Watched]) -> None:
    for part, limits in {
        Part.START: Limits(0.2, None, None, None),
        Part.SAVE: Limits(None, None, 0.2, None),
        Part.VALIDATION: Limits(None, None, None, 0.2),
    }.items():
        PROGRESS.restart()
        PROGRESS.enter(part)
        one = watched(limits)
        assert one.ended.wait(60), part
        one.dog.stop()


def test_a_rank_that_moves_on_in_time_lives(watched: Callable[..., Watched]) -> None:
    PROGRESS.step_done(0.001)
    one = watched(Limits(None, 0.5, None, None))
    end = time.monotonic() + 2.0
    step = 0
    while time.monotonic() < end:
        PROGRESS.enter(Part.DATA, step=(step := step + 1))
        time.sleep(0.05)
    assert not one.codes


def test_slow_steps_make_the_watchdog_patient() -> None:
    PROGRESS.restart()
    limits = Limits(1800, 300, None, None)
    assert PROGRESS.limit(limits) == 1800
    for seconds in (5.0, 60.0, 60.0):
        PROGRESS.step_done(seconds)
    assert PROGRESS.limit(limits) == 600
    for _ in range(4):
        PROGRESS.step_done(5.0)
    assert PROGRESS.limit(limits) == 300


def test_stacks_are_written_for_whoever_asks(watched: Callable[..., Watched]) -> None:
    one = watched(Limits(None, 2.0, None, None))
    eventually(lambda: one.files.read(0) is not None)
    assert not one.files.stacks_of(0).read_text()
    one.run.stacks_wanted.parent.mkdir(exist_ok=True)
    one.run.stacks_wanted.touch()
    eventually(lambda: "test_watchdog.py" in one.files.stacks_of(0).read_text())
    assert not one.codes


def test_a_rank_that_ends_leaves_no_record(watched: Callable[..., Watched]) -> None:
    one = watched(Limits(None, 1.0, None, None))
    eventually(lambda: one.files.read(0) is not None)
    one.dog.stop()
    assert one.files.read_all() == []


def test_nothing_is_written_where_there_is_no_run(tmp_path: Path) -> None:
    one = Watched(tmp_path / "none", Limits(None, 0.2, None, None))
    with one.dog:
        assert not one.ended.wait(0.5)
    assert not one.run.path.exists()


def test_a_file_system_that_stands_still_does_not_keep_a_rank(
    watched: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    still = threading.Event()
    monkeypatch.setattr(RoundFiles, "write", lambda *arguments: still.wait())
    PROGRESS.step_done(0.001)
    PROGRESS.enter(Part.DATA, step=3)
    one = watched(Limits(None, 0.3, None, None))
    try:
        assert one.ended.wait(60)
    finally:
        still.set()
