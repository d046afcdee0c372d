"""Stacks on request: asked for, waited for, grouped, and who did not answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_salamandra.cli import main
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE, EXIT_USAGE
from megatron_salamandra.hangs import (
    PROGRESS,
    Limits,
    NoStacks,
    Part,
    Place,
    RankRecord,
    RoundFiles,
    Watchdog,
    ask_for_stacks,
    stacks_text,
)
from megatron_salamandra.hangs.records import END_OF_STACKS
from megatron_salamandra.run_directory import RunDirectory, own

DUMP = """
2026-11-28 20:00:00 rank 0 on node1: in reduce of step 12 (gradients) for 3 s
Thread 0x00007f1 [prefetch] (most recent call first):
  File "/x/loader.py", line 5 in read
Thread 0x00007f0 [MainThread] (most recent call first):
  File "/x/step.py", line {line} in reduce
  File "/x/train.py", line 1 in main
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    PROGRESS.restart()
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    yield directory
    PROGRESS.restart()


def place_record(
    files: RoundFiles, rank: int, world: int, *, host: str = "node1", part: Part = Part.REDUCE
) -> None:
    files.prepare()
    files.write(RankRecord(rank, world, host, 1, "", Place(part, 12, "", 1), 3.0, None, 0.1))


def answering(run: RunDirectory, files: RoundFiles, texts: dict[int, str]) -> threading.Thread:
    """Ranks that write these texts, in two halves, when they are asked."""
    before = run.stacks_wanted.stat().st_mtime_ns if run.stacks_wanted.exists() else 0

    def answer() -> None:
        end = time.monotonic() + 60
        while not run.stacks_wanted.exists() or run.stacks_wanted.stat().st_mtime_ns == before:
            if time.monotonic() > end:
                return
            time.sleep(0.01)
        for rank, text in texts.items():
            with files.stacks_of(rank).open("a") as stream:
                stream.write(text[:80])
                stream.flush()
                stream.write(text[80:] + f"{END_OF_STACKS}\n")

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_equal_stacks_are_told_once_and_the_silent_are_named(run: RunDirectory) -> None:
    files = RoundFiles(run.round("0001"))
    for rank in (0, 1, 2, 4):
        place_record(files, rank, 6, host=f"node{rank // 2 + 1}")
    files.stacks_of(0).write_text(DUMP.format(line=1) + f"{END_OF_STACKS}\n")  # of an earlier request
    thread = answering(run, files, {0: DUMP.format(line=7), 1: DUMP.format(line=7), 4: DUMP.format(line=9)})
    answers = ask_for_stacks(run, seconds=3.0)
    thread.join()
    assert [[one.record.rank for one in group] for group in answers.groups()] == [[0, 1], [4]]
    assert answers.groups()[0][0].main == (
        'File "/x/step.py", line 7 in reduce',
        'File "/x/train.py", line 1 in main',
    )
    assert [record.rank for record in answers.silent] == [2] and answers.unknown == (3, 5)
    assert not answers.complete
    text = stacks_text(answers)
    for line in (
        "ranks 0-1 on node1: in reduce of step 12",
        "rank 4 on node3: in reduce of step 12",
        "rank 2 on node2 did not answer: last seen in reduce of step 12",
        "ranks 3, 5 have never said a word",
    ):
        assert line in text
    assert text.count("line 7 in reduce") == 1 and "loader.py" not in text
    assert stacks_text(answers, all_threads=True).count("loader.py") == 3
    json.dumps(answers.to_dict())


def test_an_answer_that_is_half_written_is_waited_for(run: RunDirectory) -> None:
    files = RoundFiles(run.round("0001"))
    place_record(files, 0, 1)
    files.stacks_of(0).write_text("")
    half = threading.Thread(target=lambda: files.stacks_of(0).write_text(DUMP.format(line=3)))
    half.start()
    half.join()
    before = time.monotonic()
    assert not ask_for_stacks(run, seconds=0.5).complete
    assert time.monotonic() - before >= 0.5


def test_the_ranks_of_the_newest_start_are_asked(run: RunDirectory) -> None:
    old, new = RoundFiles(run.round("0001")), RoundFiles(run.round("0002"))
    for files, ranks in ((old, 4), (new, 2)):
        for rank in range(ranks):
            place_record(files, rank, ranks)
    place_record(new, 1, 2)
    thread = answering(run, new, {0: DUMP.format(line=7), 1: DUMP.format(line=7)})
    answers = ask_for_stacks(run, seconds=30.0)
    thread.join()
    assert answers.complete and len(answers.stacks) == 2


def test_a_main_thread_that_gives_up_is_shown(run: RunDirectory) -> None:
    """It waits in the watchdog's code for the stacks of the others; the watchdog's own thread is left out."""
    files = RoundFiles(run.round("0001"))
    place_record(files, 0, 1)
    package = "/opt/elsewhere/megatron_salamandra/hangs/watchdog.py"
    dump = (
        DUMP.format(line=7)
        .replace("/x/loader.py", package)
        .replace("/x/step.py", package)
        .replace("in reduce\n", "in give_up\n")
    )
    thread = answering(run, files, {0: dump})
    (rank,) = ask_for_stacks(run, seconds=30.0).stacks
    thread.join()
    assert [frame.rpartition(" in ")[2] for frame in rank.main] == ["give_up", "main"]
    assert len(rank.threads) == 1


def test_a_real_rank_answers_and_the_command_prints_it(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    files = RoundFiles(run.round("0001"))
    PROGRESS.enter(Part.FORWARD, step=3)
    dog = Watchdog(run, files, 0, 1, Limits(None, 1.0, None, None), lambda text: None)
    with own(run), dog:
        end = time.monotonic() + 60
        while files.read(0) is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert main(["stacks", str(run.path), "--seconds", "60"]) == EXIT_DONE
        said = capsys.readouterr().out
        assert "rank 0 on " in said and "in forward of step 3" in said
        assert "test_a_real_rank_answers" in said
        assert "watchdog.py" not in said  # the threads that answer are of no interest
        assert main(["stacks", str(run.path), "--json", "--seconds", "60"]) == EXIT_DONE
        assert json.loads(capsys.readouterr().out)["groups"][0]["ranks"] == [0]


def test_the_command_fails_if_a_rank_does_not_answer(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    files = RoundFiles(run.round("0001"))
    place_record(files, 0, 2)
    place_record(files, 1, 2, host="node9")
    with own(run):
        assert main(["stacks", str(run.path), "--seconds", "0.2"]) == EXIT_FAILURE
    assert "rank 1 on node9 did not answer" in capsys.readouterr().out


def test_a_run_without_ranks_is_refused(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stacks", str(run.path)]) == EXIT_USAGE
    assert "no run here" in capsys.readouterr().err
    run.config.write_text("")
    assert main(["stacks", str(run.path)]) == EXIT_USAGE
    assert "does not run: never started" in capsys.readouterr().err
    with pytest.raises(NoStacks, match="no rank has said where it is"):
        ask_for_stacks(run)
