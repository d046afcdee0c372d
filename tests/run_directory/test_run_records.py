"""Metrics, validation and events: what is written is what is read, torn lines or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.run_directory import (
    EventLog,
    MetricsLog,
    RunDirectory,
    ValidationLog,
    ValidationRecord,
    read_events,
)


def score(step: int, language: str) -> ValidationRecord:
    return ValidationRecord(step, language, loss=1.5, perplexity=4.48, bits_per_byte=0.7, tokens=10)


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    log.append(1, {"loss": 2.5, "seconds": {"data": 0.1}})
    (record,) = log.read()
    assert (record.step, record.loss, record.values["seconds"]) == (1, 2.5, {"data": 0.1})


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', '{"step": 2, "lo\n', "[1]\n", '"text"\n', "\0\0\0"])
def test_a_torn_line_costs_only_itself(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append(1, {"loss": 1.0})
    with path.open("a") as stream:
        stream.write(torn)
    log.append(2, {"loss": 2.0})
    log.append(3, {"loss": 3.0})
    assert [(record.step, record.loss) for record in log.read()] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    log.forget_after(2)
    assert [record.step for record in log.read()] == [1, 2]
    assert len(path.read_text().splitlines()) == 2


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = ValidationLog(tmp_path / "validation.jsonl")
    scores = [score(step, language) for step in (0, 5) for language in ("ca", "en")]
    for one in scores:
        log.append(one)
    assert log.read() == scores
    assert log.forget_after(0) == 2
    assert log.read() == scores[:2]


def test_only_rank_0_writes_events_but_every_rank_its_failures(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path, enabled=True).write("start", layout="TP1")
    EventLog(path, enabled=False).write("start", layout="TP1")
    EventLog(path, enabled=False).write("failure", rank=3)
    assert [(event.kind, event.details) for event in read_events(path)] == [
        ("start", {"layout": "TP1"}),
        ("failure", {"rank": 3}),
    ]


def test_events_that_cannot_be_written_do_not_end_the_run_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nowhere" / "events.jsonl"
    log = EventLog(path, enabled=True)
    log.write("start")
    log.write("resume")
    path.parent.mkdir()
    log.write("end")
    assert [event.kind for event in read_events(path)] == ["end"]
    told = [record.getMessage() for record in caplog.records]
    assert [message.partition(",")[0] for message in told] == [
        f"{path} cannot be written",
        f"{path} is written again; 2 records are missing from it",
    ]


def test_a_run_is_found_around_its_checkpoint_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoints" / "step-00000005"
    checkpoint.mkdir(parents=True)
    assert RunDirectory.around(checkpoint) == RunDirectory(tmp_path)
    monkeypatch.chdir(checkpoint.parent)
    assert RunDirectory.around(Path("step-00000005")) == RunDirectory(tmp_path)


def test_the_last_steps_are_found_without_reading_the_whole_file(tmp_path: Path) -> None:
    """The tail begins inside a line, which does not count; nor do torn ones."""
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.recent() == []
    log.append(1, {"loss": 1.0})
    assert [record.step for record in log.recent()] == [1]
    for step in range(2, 6):
        log.append(step, {"loss": float(step), "note": "x" * 30_000})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    recent = log.recent()
    assert [(record.step, record.loss) for record in recent] == [(4, 4.0), (5, 5.0)]
