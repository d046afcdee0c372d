"""The fault campaign's short form: a few kills of each kind, of ranks that are forked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed_runs import differences, disturb
from fault_campaign import Kills
from forked_ranks import ForkedRanks
from kill_plan import STAGES, kill_case
from kill_points import KillPoint

SEED = 11
ASYNCHRONOUS = "checkpoint.asynchronous=true"


@pytest.fixture(scope="module")
def kills(blend: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    yield Kills(tmp_path_factory.mktemp("kills"), SEED, blend)


@pytest.mark.parametrize("number", [2, 7])
def test_a_run_that_was_killed_ends_as_one_that_was_not(kills: Kills, number: int) -> None:
    result = kills.attempt_forked(number)
    assert result["problems"] == []
    assert result["reached"]


@pytest.mark.parametrize(
    "places",
    [
        # Between a checkpoint's name and everything that is told of it.
        [{"file": "checkpoints/step-00000006", "later": 1}],
        # Again and again before the next save, and while the last start cuts the metrics.
        [
            {"part": "update", "step": 5},
            {"part": "reduce", "step": 5},
            {"part": "callbacks", "step": 4},
            {"file": "metrics.jsonl", "later": 3},
        ],
        # Between the metrics of a step and its validation.
        [{"file": "metrics.jsonl", "nth": 9, "later": 1}, {"file": "validation.jsonl", "nth": 2}],
    ],
    ids=["named-and-not-told", "again-before-the-next-save", "between-metrics-and-validation"],
)
def test_every_step_is_told_once_wherever_the_kills_were(
    kills: Kills, blend: Path, tmp_path: Path, places: list[dict[str, object]]
) -> None:
    points = [
        KillPoint(str(tmp_path / f"book-{turn}"), 0, "self", **place)  # type: ignore[arg-type]
        for turn, place in enumerate(places)
    ]
    run, ranks = tmp_path / "run", ForkedRanks()
    seen = disturb(lambda point: ranks.start(blend, run, point, ASYNCHRONOUS), run, points)
    assert seen["reached"] == len(points)
    assert differences(run, kills.undisturbed()) == []


def test_a_seed_names_the_same_kills_for_ever_and_every_stage_and_victim_has_its_turn(tmp_path: Path) -> None:
    cases = [kill_case(SEED, number, tmp_path) for number in range(100)]
    assert cases == [kill_case(SEED, number, tmp_path) for number in range(100)]
    assert {(case.stage, case.victims) for case in cases if case.stage != "resume"} == {
        (stage, who) for stage, victims in STAGES.items() for who in victims if stage != "resume"
    }
    assert {case.launcher for case in cases} == {"train", "torchrun"}
