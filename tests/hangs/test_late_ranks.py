"""Who holds up the others, from the records of all ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from megatron_salamandra.hangs import Part, Place, RankRecord, RoundFiles, find_late

NOW = 1_000_000.0


def place(part: Part, step: int = 12, marks: int = 1, detail: str = "") -> Place:
    return Place(part, step, detail, marks)


def record(rank: int, where: Place, *, world: int = 4, **more: object) -> RankRecord:
    """Two ranks to a host; all have written at the same moment unless said otherwise."""
    values = RankRecord(
        rank, world, f"node{1 + rank // 2}", 100 + rank, "stage 0", where, 74.0, 50, 10.0, NOW
    )
    return replace(values, **more)  # type: ignore[arg-type]


def late(*records: RankRecord) -> list[int]:
    return [r.rank for r in find_late(records, Path("stacks")).late]


WAITING = place(Part.REDUCE, marks=2)


def test_a_rank_that_writes_no_record_is_late_wherever_the_others_stand() -> None:
    records = [record(rank, WAITING) for rank in range(4)]
    records[1] = record(1, place(Part.BACKWARD, detail="micro-batch 3 of 8"), written=NOW - 74)
    hang = find_late(records, Path("RUN/stacks"))
    assert hang.text == (
        "rank 1 on node1: no sign of life for 74 s, last in backward of step 12 (micro-batch 3 of 8); "
        "3 other ranks wait in reduce of step 12; stacks in RUN/stacks"
    )
    assert hang.suspect is not None and hang.suspect.host == "node1"


def test_ranks_whose_records_are_a_little_apart_are_all_alive() -> None:
    assert late(*(record(rank, WAITING, written=NOW - 5 * rank) for rank in range(4))) == []


def test_a_rank_without_a_record_is_told() -> None:
    assert (
        "rank 2: no sign of life at all"
        in find_late([record(rank, WAITING) for rank in (0, 1, 3)], Path("stacks")).text
    )


@pytest.mark.parametrize(
    ("behind", "others"),
    [
        (place(Part.CALLBACKS, detail="Hangs"), place(Part.DATA, 13)),  # a step behind
        (place(Part.DATA), WAITING),  # a part behind
        (place(Part.UPDATE), place(Part.SAVE, marks=3)),
        (place(Part.REDUCE, marks=1), WAITING),  # in the same part, at an earlier place
        (place(Part.CALLBACKS, marks=2), place(Part.CALLBACKS, marks=5)),
        (place(Part.FORWARD, marks=3), place(Part.BACKWARD, marks=4)),
        (place(Part.START, 0, marks=3), place(Part.START, 0, marks=4)),
        (place(Part.START, 12, marks=9), place(Part.CALLBACKS, 0)),  # the start comes before all
        (place(Part.LOAD), place(Part.END)),
    ],
)
def test_a_living_rank_is_late_if_it_is_behind(behind: Place, others: Place) -> None:
    assert late(record(0, others), record(1, others), record(2, behind), record(3, others)) == [2]


def test_at_the_same_place_the_count_of_collectives_tells() -> None:
    records = [record(rank, place(Part.FORWARD, marks=3), collectives=80) for rank in range(4)]
    assert late(*records) == []
    records[3] = replace(records[3], collectives=79)
    assert late(*records) == [3]


def test_stages_of_a_pipeline_are_not_compared_by_micro_batches_or_collectives() -> None:
    first = [record(rank, place(Part.FORWARD, marks=7), collectives=9) for rank in (0, 1)]
    last = [record(rank, place(Part.BACKWARD, marks=4), collectives=5, peers="stage 1") for rank in (2, 3)]
    assert late(*first, *last) == []
    last[1] = replace(last[1], place=place(Part.FORWARD, marks=3))
    assert late(*first, *last) == [3]


def test_where_all_stand_at_the_same_place_nobody_is_suspected() -> None:
    hang = find_late([record(rank, WAITING) for rank in range(4)], Path("stacks"))
    assert hang.suspect is None
    assert hang.text == "all ranks stand in reduce of step 12; stacks in stacks"


def test_no_host_is_suspected_where_several_or_most_ranks_are_late() -> None:
    behind = place(Part.DATA)
    two_hosts = [record(0, behind), record(1, WAITING), record(2, behind), record(3, WAITING)]
    assert find_late(two_hosts, Path("stacks")).suspect is None
    most = [record(rank, behind if rank else WAITING, host="node1") for rank in range(4)]
    assert find_late(most, Path("stacks")).suspect is None


def test_hundreds_of_late_ranks_make_a_short_sentence() -> None:
    records = [record(r, place(Part.DATA, 12 + r % 2), world=1024) for r in range(1024)]
    hang = find_late(records, Path("stacks"))
    assert len(hang.late) == 512 and len(hang.text) < 400
    assert "508 more ranks" in hang.text


def test_records_of_an_earlier_larger_world_do_not_count() -> None:
    records = [
        record(0, WAITING, world=2),
        record(1, WAITING, world=2),
        record(3, WAITING, written=NOW - 999),
    ]
    assert find_late([*records], Path("stacks")).text.startswith("all ranks stand")


def test_records_come_back_from_disk_and_torn_ones_do_not(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path / "round")
    files.prepare()
    written = [record(0, place(Part.SAVE, detail="ü" * 500)), record(1, WAITING, host="h" * 300)]
    for entry in written:
        files.write(entry)
        files.write(entry)
    (tmp_path / "round/progress/rank-00002.json").write_text('{"rank": 2')
    (tmp_path / "round/progress/rank-00003.json").write_text("[]")
    found = files.read_all()
    assert [(r.rank, r.place.part) for r in found] == [(0, Part.SAVE), (1, Part.REDUCE)]
    assert all(path.stat().st_size == 1024 for path in (tmp_path / "round/progress").glob("rank-0000[01]*"))
    for rank in range(4):
        files.forget(rank)
    assert not files.directory.exists()
