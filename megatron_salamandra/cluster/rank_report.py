"""How ranks tell the supervisor how they ended: a small file each, because srun's exit code is another one.

srun ends with the code of whatever it killed last; the code of rank 0 and the message of the first rank that failed are
kept here. The supervisor names the directory in ``SALAMANDRA_ROUND_DIR``; without it nothing is written.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.cluster.rounds import RankFailure
from megatron_salamandra.foundation.atomic_files import atomic_write_text
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED
from megatron_salamandra.foundation.json_files import read_json_object, write_json
from megatron_salamandra.run_directory import ROUND_DIR

_WORD = "word"
_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True)
class RankReport:
    """What one rank said when it ended.

    Attributes:
        seconds: since 1970, by the rank's own clock.
    """

    rank: int
    host: str
    code: int
    message: str
    seconds: float


def report_end(rank: int, code: int, message: str = "") -> None:
    """Say how this rank ended, if a supervisor wants to know: every end of rank 0, and every failure.

    Never raises: whoever ends has a reason of its own.
    """
    directory = os.environ.get(ROUND_DIR)
    if not directory or (rank != 0 and code in (EXIT_DONE, EXIT_STOPPED)):
        return
    contents = {
        "rank": rank,
        "host": socket.gethostname(),
        "code": code,
        "message": message[-_MESSAGE_CHARACTERS:],
        "seconds": time.time(),
    }
    with contextlib.suppress(UserError, OSError):
        write_json(Path(directory) / f"rank-{rank:05d}.json", contents)


def leave_word(reason: str) -> None:
    """Tell the supervisor, if there is one, that the run stops by itself, and why: no signal asked for it.

    Such a stop would come again, so the run is not started again without a person. Called by any rank, the word is
    the same. Never raises.
    """
    if directory := os.environ.get(ROUND_DIR):
        with contextlib.suppress(UserError, OSError):
            atomic_write_text(Path(directory) / _WORD, reason)


def read_word(directory: Path) -> str:
    """What :func:`leave_word` left in a round's directory; empty if nothing."""
    try:
        return (directory / _WORD).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def read_reports(directory: Path) -> list[RankReport]:
    """The reports of a round, by time; what cannot be read is passed over."""
    found = []
    for path in sorted(directory.glob("rank-*.json")):
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
            entry = read_json_object(path)
            found.append(
                RankReport(
                    int(entry["rank"]),
                    str(entry["host"]),
                    int(entry["code"]),
                    str(entry["message"]),
                    float(entry["seconds"]),
                )
            )
    return sorted(found, key=lambda report: report.seconds)


def first_failure(reports: list[RankReport]) -> RankFailure | None:
    """The first rank that failed with a code of its own, not because it was told to end."""
    for report in reports:
        if report.code not in (EXIT_DONE, EXIT_STOPPED):
            return RankFailure(report.rank, report.host, report.code, report.message)
    return None
