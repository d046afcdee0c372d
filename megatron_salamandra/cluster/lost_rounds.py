"""Rounds that nobody wrote down: their supervisor was killed, or its host lost its power.

Each round leaves a note in its own directory when it starts. The next supervisor finds the notes without a line in
``rounds.jsonl`` and writes the lines, so that a run that dies in this way again and again is known to make no progress.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from megatron_salamandra.cluster.rank_report import first_failure, read_reports
from megatron_salamandra.cluster.rounds import Action, Cause, Decision, Outcome, Round
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import read_json_object, write_json

_NOTE = "began.json"


def next_number(control: Path, history: Sequence[Round]) -> int:
    """Number of the next round: that of none whose line or directory is there."""
    return max([0, *(entry.number for entry in history), *_directories(control)]) + 1


def note_start(directory: Path, job: str, started: str, hosts: Sequence[str], saved_step: int) -> None:
    """Leave the note of a round that starts.

    Raises:
        WriteError: the directory cannot be written.
    """
    write_json(
        directory / _NOTE, {"job": job, "started": started, "hosts": list(hosts), "saved_step": saved_step}
    )


def lost_rounds(
    control: Path, history: Sequence[Round], *, now: str, last_step: int, saved_step: int
) -> list[Round]:
    """Rounds that started and have no line, oldest first.

    Args:
        control: directory of the rounds' directories.
        last_step, saved_step: how far the run is now.
    """
    written = {entry.number for entry in history}
    found = []
    for number, directory in sorted(_directories(control).items()):
        if number in written:
            continue
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
            note = read_json_object(directory / _NOTE)
            failure = first_failure(read_reports(directory))
            outcome = Outcome(
                Cause.LOST, None, int(note["saved_step"]), last_step, saved_step, failure=failure
            )
            decision = Decision(
                Action.LEAVE, "nobody wrote how it ended: its supervisor or its host was gone"
            )
            hosts = tuple(str(host) for host in note["hosts"])
            found.append(Round(number, str(note["job"]), str(note["started"]), now, hosts, outcome, decision))
    return found


def _directories(control: Path) -> dict[int, Path]:
    return {
        int(found[1]): path
        for path in control.glob("round-*")
        if (found := re.fullmatch(r"round-(\d+)", path.name))
    }
