"""Requests to a running run, as files in its directory: ``control/stop`` and ``control/save``.

Any process that may write into the run directory makes them: the supervisor before a time limit, a team-mate on a
login node. Rank 0 looks for them at every step, and all ranks follow at the same step boundary. Files get through where
signals do not: past SLURM's process tracking, containers and hosts.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import read_json_object, write_json
from megatron_salamandra.run_directory import RunDirectory

Request = Literal["stop", "save"]

HEARTBEAT = "heartbeat"
_JOB = "job"

_TAKEN_UP: dict[Request, str] = {"stop": "stopped", "save": "saved"}


@dataclass(frozen=True)
class Asked:
    """A request that lies in a run directory.

    Attributes:
        kind: ``stop``: finish the step, save, leave. ``save``: save and go on.
        reason: for the log and the report.
        again: whether the run is to be started again afterwards, as before a time limit; False if a person stopped it.
        by: user, host and time.
    """

    kind: Request
    reason: str
    again: bool
    by: str


@dataclass(frozen=True)
class JobNote:
    """The job that trains, or trained last.

    Attributes:
        job: the scheduler's number of it, as text.
        ends: its time limit, seconds since 1970; None without one.
    """

    job: str
    ends: float | None


@dataclass(frozen=True)
class Beat:
    """The last sign of life.

    Attributes:
        time: in seconds since 1970, by the clock of the file system.
        within_seconds: how long the next one may take; None if that is not said.
    """

    time: float
    within_seconds: float | None


class ControlFiles:
    """The requests and the heartbeat of one run directory."""

    def __init__(self, run_dir: Path) -> None:
        self.directory = RunDirectory(run_dir).control

    def ask(self, kind: Request, reason: str, *, again: bool = False) -> None:
        """Leave a request; the one that lies there already gives way.

        Raises:
            WriteError: the run directory cannot be written.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        by = f"{_user()} on {socket.gethostname()} at {now}"
        write_json(self.directory / kind, {"reason": reason, "again": again, "by": by})

    def asked(self, kind: Request) -> Asked | None:
        """The request that lies there, or None. Costs one look at a file that is not there.

        A request that cannot be read counts: an empty file made with ``touch`` asks as well.
        """
        return self._read(kind, self.directory / kind)

    @staticmethod
    def _read(kind: Request, path: Path) -> Asked | None:
        try:
            if not path.exists():
                return None
        except OSError:  # a file system that is away for a while
            return None
        with contextlib.suppress(UserError, KeyError):
            contents = read_json_object(path)
            return Asked(kind, str(contents["reason"]), bool(contents["again"]), str(contents["by"]))
        return Asked(kind, f"{path} was made", False, "unknown")

    def take_up(self, kind: Request) -> None:
        """Note that a request is followed: it is kept under another name, so that it is followed once."""
        with contextlib.suppress(OSError):
            os.replace(self.directory / kind, self.directory / _TAKEN_UP[kind])

    def taken_up(self, kind: Request) -> Asked | None:
        """The request that was followed last, or None."""
        return self._read(kind, self.directory / _TAKEN_UP[kind])

    def forget(self, kind: Request) -> None:
        """Remove a request, and the note of the one that was followed."""
        for name in (kind, _TAKEN_UP[kind]):
            (self.directory / name).unlink(missing_ok=True)

    def note_job(self, note: JobNote) -> None:
        """Say which job has the run now. What the disk refuses is nobody's loss."""
        with contextlib.suppress(UserError, OSError):
            write_json(self.directory / _JOB, asdict(note))

    def job(self) -> JobNote | None:
        """The job that has the run, or had it last; None outside of jobs."""
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
            contents = read_json_object(self.directory / _JOB)
            ends = contents["ends"]
            return JobNote(str(contents["job"]), None if ends is None else float(ends))
        return None

    def forget_own(self) -> None:
        """Remove the stop that the supervisor asked for, and all notes of stops that were followed.

        What a person asked for and nobody has followed yet stays.
        """
        asked = self.asked("stop")
        if asked is not None and asked.again:
            (self.directory / "stop").unlink(missing_ok=True)
        (self.directory / _TAKEN_UP["stop"]).unlink(missing_ok=True)

    def asked_at(self, kind: Request) -> float | None:
        """When the request that lies there was made, in seconds since 1970; None without one."""
        with contextlib.suppress(OSError):
            return (self.directory / kind).stat().st_mtime
        return None

    def beat(self, within_seconds: float | None = None) -> None:
        """Say that the run moves; called by rank 0 at every step. What the disk refuses is nobody's loss.

        Args:
            within_seconds: how long the next beat may take.
        """
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            text = "" if within_seconds is None else f"{within_seconds:g}"
            (self.directory / HEARTBEAT).write_text(text, encoding="ascii")

    def last_beat(self) -> Beat | None:
        """The last beat; None if there was none.

        Raises:
            OSError: the file system does not say.
        """
        path = self.directory / HEARTBEAT
        try:
            moved, text = path.stat().st_mtime, path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        within = None
        with contextlib.suppress(ValueError):  # empty, or just being written
            within = float(text)
        return Beat(moved, within)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container in which the user has no name
        return str(os.getuid())
