"""What follows on a round: every row of the decision table, and that no run goes in circles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.cluster import (
    Action,
    Allocation,
    Cause,
    Decision,
    Outcome,
    RankFailure,
    Round,
    decide,
)

ALLOCATION = Allocation("7", 2, ("a", "b"))
SPARE = replace(ALLOCATION, answering=("a", "b", "c"))


def outcome(cause: Cause, *, first: int = 0, saved: int = 10, **more: object) -> Outcome:
    return Outcome(cause, 1, first, saved + 3, saved, **more)  # type: ignore[arg-type]


def rounds_of(*past: Outcome, job: str = "7", decision: Decision | None = None) -> list[Round]:
    follows = decision or Decision(Action.RESTART, "")
    return [Round(number, job, "", "", ("a", "b"), entry, follows) for number, entry in enumerate(past, 1)]


@pytest.mark.parametrize(
    ("cause", "action", "code"),
    [
        (Cause.DONE, Action.END, 0),
        (Cause.REQUESTED, Action.END, 0),
        (Cause.CONFIGURATION, Action.END, 2),
        (Cause.CANCELLED, Action.END, 143),
        (Cause.PREEMPTED, Action.LEAVE, 0),
        (Cause.STOPPED, Action.REQUEUE, 0),
        (Cause.LIMIT, Action.REQUEUE, 0),
        (Cause.CRASH, Action.RESTART, 0),
        (Cause.HANG, Action.RESTART, 0),
    ],
)
def test_first_round_with_progress(cause: Cause, action: Action, code: int) -> None:
    decided = decide([], outcome(cause), ALLOCATION)
    assert (decided.action, decided.exit_code, decided.wait_seconds) == (action, code, 0)


def test_a_wrong_configuration_is_never_tried_again_whatever_came_before() -> None:
    past = rounds_of(*[outcome(Cause.STOPPED, first=10 * n, saved=10 * n + 10) for n in range(5)])
    assert decide(past, outcome(Cause.CONFIGURATION, first=50, saved=50), SPARE).action is Action.END


def test_the_failed_nodes_place_is_taken_by_a_spare_one() -> None:
    lost = outcome(Cause.NODE, suspects=("b",))
    decided = decide([], lost, replace(SPARE, answering=("a", "c")))
    assert (decided.action, decided.exclude) == (Action.RESTART, ("b",))


def test_without_a_spare_node_a_bad_one_sends_the_job_back_to_the_queue() -> None:
    decided = decide([], outcome(Cause.HANG, suspects=("b",)), ALLOCATION)
    assert (decided.action, decided.exclude) == (Action.REQUEUE, ("b",))


def test_the_host_of_a_crash_is_left_out_only_if_there_is_another() -> None:
    crash = outcome(Cause.CRASH, failure=RankFailure(3, "b", 137, "killed"))
    assert decide([], crash, ALLOCATION).exclude == ()
    decided = decide([], crash, SPARE)
    assert decided.exclude == ("b",)
    assert decided.reason == "crash after step 13; rank 3 on b ended first with code 137: killed"


def test_hosts_stay_excluded_for_the_rest_of_their_job_only() -> None:
    earlier = rounds_of(
        outcome(Cause.HANG, suspects=("c",)), decision=Decision(Action.RESTART, "", exclude=("c",))
    )
    now = outcome(Cause.CRASH, first=10, saved=20)
    assert decide(earlier, now, SPARE).exclude == ("c",)
    assert decide(earlier, now, replace(SPARE, job="8")).exclude == ()


def test_back_off_grows_and_ends() -> None:
    stuck = outcome(Cause.CRASH, first=10, saved=10)
    waits, past = [], []
    while (decided := decide(past, stuck, ALLOCATION)).action is not Action.END:
        waits.append(decided.wait_seconds)
        past = rounds_of(*[stuck] * len(waits))
    assert waits == [60, 300, 900]
    assert decided.exit_code == 1
    assert "4 rounds in a row without progress" in decided.reason


def test_progress_makes_patience_anew() -> None:
    stuck, better = outcome(Cause.CRASH, first=10, saved=10), outcome(Cause.CRASH, first=10, saved=20)
    decided = decide(
        rounds_of(stuck, stuck, stuck, better), outcome(Cause.CRASH, first=20, saved=20), ALLOCATION
    )
    assert (decided.action, decided.wait_seconds) == (Action.RESTART, 60)


def test_two_stops_in_a_row_that_saved_nothing_end_the_run() -> None:
    empty = outcome(Cause.STOPPED, first=10, saved=10)
    assert decide([], empty, ALLOCATION).action is Action.REQUEUE
    decided = decide(rounds_of(empty), empty, ALLOCATION)
    assert (decided.action, decided.exit_code) == (Action.END, 1)


def test_a_round_that_would_not_get_to_its_first_save_goes_to_the_queue_instead() -> None:
    assert decide([], outcome(Cause.CRASH), replace(ALLOCATION, seconds_left=500)).action is Action.REQUEUE
    assert decide([], outcome(Cause.CRASH), replace(ALLOCATION, seconds_left=700)).action is Action.RESTART


def test_where_requeueing_is_forbidden_the_chain_goes_on_or_the_user_does() -> None:
    forbidden = replace(ALLOCATION, may_requeue=False)
    assert decide([], outcome(Cause.STOPPED), replace(forbidden, chained=True)).action is Action.LEAVE
    decided = decide([], outcome(Cause.STOPPED), forbidden)
    assert (decided.action, decided.exit_code) == (Action.END, 1)
    assert "submit the same command again" in decided.reason


causes = st.sampled_from(list(Cause))
goes_on = st.sampled_from([Cause.STOPPED, Cause.CRASH, Cause.HANG, Cause.NODE, Cause.LIMIT])


@given(st.lists(goes_on, min_size=4, max_size=4), st.integers(0, 3), st.lists(goes_on, max_size=5))
def test_no_run_goes_in_circles(empty: list[Cause], spares: int, before: list[Cause]) -> None:
    """However rounds end, a fourth one in a row without progress is the last."""
    allocation = replace(ALLOCATION, answering=("a", "b", "c", "d", "e")[: 2 + spares])
    past: list[Round] = []
    for number, cause in enumerate([*before, *empty]):
        first = min(number, len(before))
        now = Outcome(cause, 1, first, first + 1, min(number + 1, len(before)))
        decided = decide(past, now, allocation)
        assert decided == decide(list(past), now, allocation)
        past.append(Round(number + 1, "7", "", "", ("a", "b"), now, decided))
    assert past[-1].decision.action is Action.END
    assert past[-1].decision.exit_code == 1
    assert all(entry.decision.action is not Action.END for entry in past[: len(before)])


@given(st.lists(causes, min_size=1, max_size=5))
def test_rounds_come_back_as_they_were_written(story: list[Cause]) -> None:
    failure = RankFailure(1, "b", 137, "killed")
    for number, cause in enumerate(story):
        ended = outcome(cause, failure=failure, suspects=("b",))
        follows = Decision(Action.REQUEUE, "why", 60.0, ("b",), 1)
        entry = Round(number, "7", "x", "y", ("a",), ended, follows)
        assert Round.from_dict(entry.to_dict()) == entry
