"""The two time-outs of collectives: which one holds where, and that a stuck collective ends after the short one."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rank_jobs import train_with_a_rank_that_stays_away
from training_runs import TrainingRuns

from megatron_salamandra.cluster import limits_of
from megatron_salamandra.config import load_run_config
from megatron_salamandra.foundation.exit_codes import EXIT_HUNG
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.parallel import CollectiveTimeouts, is_timeout
from megatron_salamandra.run_directory import RunDirectory, read_events


@pytest.fixture(autouse=True)
def progress() -> Iterator[None]:
    PROGRESS.restart()
    yield
    PROGRESS.restart()


def seconds(timeouts: CollectiveTimeouts) -> float:
    return timeouts.wanted / datetime.timedelta(seconds=1)


def test_it_is_long_until_the_first_step_is_done_and_in_what_has_a_time_of_its_own() -> None:
    timeouts = CollectiveTimeouts(1800.0, 600.0)
    PROGRESS.enter(Part.REDUCE, step=1)
    assert seconds(timeouts) == 2100
    PROGRESS.step_done(2.0)
    for part, wanted in {
        **dict.fromkeys(
            (Part.DATA, Part.FORWARD, Part.REDUCE, Part.DECIDE, Part.UPDATE, Part.CALLBACKS), 600
        ),
        **dict.fromkeys((Part.SAVE, Part.LOAD, Part.VALIDATION), 2100),
    }.items():
        PROGRESS.enter(part)
        assert seconds(timeouts) == wanted, part


def test_slow_steps_make_it_longer_and_none_means_long() -> None:
    PROGRESS.step_done(100.0)
    assert seconds(CollectiveTimeouts(1800.0, 600.0)) == 2000
    assert seconds(CollectiveTimeouts(None, None)) > 1e5
    assert seconds(CollectiveTimeouts(1800.0, None)) == 2100
    PROGRESS.step_done(1000.0)
    PROGRESS.step_done(1000.0)
    assert seconds(CollectiveTimeouts(1800.0, 600.0)) == 2100  # never longer than the long one


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([], 600),  # twice the limit of a step, so that the watchdog is first
        (["hangs.step_seconds=4000"], 8000),
        (["hangs.step_seconds=null"], None),  # whoever waits for ever in a step is not given up on
        (["hangs.step_seconds=null", "hangs.collective_seconds=50"], 50),
    ],
)
def test_the_short_time_out_follows_from_the_limit_of_a_step(
    written: list[str], expected: float | None
) -> None:
    assert limits_of(load_run_config("tiny", written)).collective == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[unbound_buffer.cc:81] Timed out waiting 3000ms for recv operation to complete", True),
        ("[../third_party/gloo] Timed out waiting 600000ms for send operation to complete", True),
        ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE)", True),
        ("Connection closed by peer [127.0.0.1]:1234", False),
        ("NCCL error: unhandled system error", False),
        ("timeout of the loader", False),
    ],
)
def test_what_counts_as_a_collective_that_gave_up(text: str, expected: bool) -> None:
    assert is_timeout(RuntimeError(text)) is expected
    assert not is_timeout(OSError(text))


def test_a_stuck_collective_ends_after_the_short_time_out_and_a_late_start_is_waited_for(
    runs: TrainingRuns,
) -> None:
    # No watchdog ends anybody here: without the short time-out this would last 900 s.
    watchdogs = ("hangs.start_seconds=600", "hangs.step_seconds=600", "hangs.save_seconds=600")
    begun = time.monotonic()
    code = runs.run_job(
        train_with_a_rank_that_stays_away,
        *("stuck-collective", 2, "training.steps=8", "validation.at_end=false"),
        *(*watchdogs, "hangs.validation_seconds=600", "hangs.collective_seconds=5"),
    )
    assert code == EXIT_HUNG
    assert time.monotonic() - begun < 500
    assert len(runs.metrics("stuck-collective")) == 4  # the first step came, late as rank 1 was
    run = RunDirectory(runs.root / "stuck-collective")
    hang = next(event for event in read_events(run.events) if event.kind == "hang")
    assert hang.details["late"][0]["rank"] == 1, hang.details
    (stacks,) = Path(run.control).glob("round-*/stacks")
    assert "stay_away" in (stacks / "rank-00001.txt").read_text()
