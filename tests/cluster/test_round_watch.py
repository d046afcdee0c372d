"""A round's heartbeat as its launcher sees it: with a clock of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_salamandra.cluster import ControlFiles, RoundWatch, Watch
from megatron_salamandra.cluster.round_watch import with_margin
from megatron_salamandra.run_directory import RunDirectory


class Clock:
    """Time that passes when the test says so; beats have times of another clock, far away from this one."""

    def __init__(self, path: Path) -> None:
        self.now, self.beats = 0.0, 0
        self.control = ControlFiles(path)
        self.watch = RoundWatch(
            RunDirectory(path), path / "round", Watch(start_seconds=100, beat_seconds=30), lambda: self.now
        )

    def beat(self, within: float | None = None) -> None:
        self.control.beat(within)
        self.beats += 1
        os.utime(self.control.directory / "heartbeat", (self.beats, self.beats))

    def still_after(self, seconds: int) -> int | None:
        """After how many of these seconds the round counts as hung; None if after none."""
        for passed in range(1, seconds + 1):
            self.now += 1.0
            if self.watch.is_still():
                return passed
        return None


def test_a_start_and_a_step_have_their_own_patience(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    assert clock.still_after(95) is None
    clock.beat()
    assert clock.still_after(25) is None
    clock.beat()
    assert clock.still_after(100) in range(30, 34)


def test_a_round_that_never_beats_counts_as_hung_although_an_earlier_one_did(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.beat()
    assert clock.still_after(200) in range(100, 104)


def test_rank_0_says_how_long_it_may_take(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.still_after(1)
    clock.beat(500.0)
    assert clock.still_after(500) is None
    clock.beat(float("inf"))
    assert clock.still_after(5000) is None
    clock.beat(4.0)
    assert clock.still_after(100) in range(14, 18)
    assert with_margin(300.0) == 360.0


@pytest.mark.parametrize("how", ["fails", "stands still"])
def test_a_file_system_that_does_not_answer_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    clock = Clock(tmp_path)
    clock.still_after(1)
    clock.beat()
    clock.still_after(10)
    real = ControlFiles.last_beat

    def slow(control: ControlFiles) -> object:
        if how == "fails":
            raise OSError(5, "Input/output error")
        clock.now += 600.0
        return real(control)

    with monkeypatch.context() as patch:
        patch.setattr(ControlFiles, "last_beat", slow)
        assert clock.still_after(100) is None
    assert clock.still_after(8) is None
    clock.beat()
    assert clock.still_after(20) is None


def test_time_in_which_the_supervisor_itself_was_stopped_does_not_count(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.still_after(1)
    clock.beat()
    clock.still_after(5)
    clock.now += 3600.0
    assert clock.still_after(5) is None


def test_ranks_that_run_are_named_when_no_beat_comes(tmp_path: Path) -> None:
    look: Callable[[], object] = Clock(tmp_path).watch.who_is_late
    assert "no rank says where it stands" in str(look())
