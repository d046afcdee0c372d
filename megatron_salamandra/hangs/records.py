"""The records and stacks of all ranks of a round, as small files in its directory.

A rank writes its own record every few seconds from a thread of its own, one block in place, so that a thousand ranks
cost a shared file system about a hundred small writes a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_text
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.hangs.progress import Part, Place
from megatron_salamandra.run_directory import ROUND_DIR, RunDirectory

END_OF_STACKS = "end of stacks"
"""The line behind the stacks of a rank: all of them are written."""
_RECORD_BYTES = 1024
_TEXT_CHARACTERS = 120


@dataclass(frozen=True)
class RankRecord:
    """What a rank wrote about itself.

    Attributes:
        world: number of ranks.
        peers: ranks with the same word here do the same collectives and micro-batches.
        place: where it is.
        seconds: for how long, by the time that the rank ran.
        collectives: how many it has begun; None where that is not known.
        every_seconds: between two records.
        written: when, in seconds since 1970 by the clock of the file system, which all records share.
    """

    rank: int
    world: int
    host: str
    process: int
    peers: str
    place: Place
    seconds: float
    collectives: int | None
    every_seconds: float
    written: float = 0.0

    def to_bytes(self) -> bytes:
        """One block of a fixed size."""
        place = replace(self.place, detail=self.place.detail[:_TEXT_CHARACTERS])
        entry = asdict(replace(self, place=place, host=self.host[:_TEXT_CHARACTERS]))
        del entry["written"]
        return json.dumps(entry).encode().ljust(_RECORD_BYTES - 1) + b"\n"

    @classmethod
    def from_bytes(cls, text: bytes, written: float) -> RankRecord:
        """Read what :meth:`to_bytes` made.

        Raises:
            ValueError: it is not that, or torn.
        """
        try:
            entry: dict[str, Any] = json.loads(text)
            place = entry.pop("place")
            return cls(**entry, place=Place(**{**place, "part": Part(place["part"])}), written=written)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record: {error!r}") from error


def round_directory(directory: RunDirectory, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the records of this start of all ranks lie: the same path on every rank, another one at another start.

    Args:
        environment: of a rank. Where no launcher of ours has named the directory, what torchrun or the port says is
            the same on all ranks.
    """
    if named := environment.get(ROUND_DIR):
        return Path(named)
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
    known = [re.sub(r"[^\w.]", "_", environment[name]) for name in names if environment.get(name)]
    return directory.round("-".join(known) or "alone")


def newest_round(directory: RunDirectory) -> RoundFiles | None:
    """Files of the start of all ranks whose records are the newest; None if no rank has left a record."""
    found = [RoundFiles(path) for path in directory.round("*").parent.glob(directory.round("*").name)]
    written = {files: max((one.written for one in files.read_all()), default=None) for files in found}
    with_records = {files: moment for files, moment in written.items() if moment is not None}
    return max(with_records, key=lambda files: with_records[files], default=None)


class RoundFiles:
    """Records, stacks and the mark of a hang in the directory of a round."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stacks = directory / "stacks"
        self._records = directory / "progress"
        self._mark = directory / "hang"
        self._spoken = directory / "told"

    def prepare(self) -> None:
        """Make the directories.

        Raises:
            OSError: they cannot be made.
        """
        self._records.mkdir(parents=True, exist_ok=True)
        self.stacks.mkdir(exist_ok=True)

    def write(self, record: RankRecord) -> None:
        """Write a rank's record in place.

        Raises:
            OSError: the file system refuses.
        """
        # Opened and closed each time: network file systems show others what was written when a file is closed.
        descriptor = os.open(self._record(record.rank), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, record.to_bytes(), 0)
        finally:
            os.close(descriptor)

    def forget(self, rank: int) -> None:
        """Remove a rank's record, and the directories once they are empty."""
        with contextlib.suppress(OSError):
            self._record(rank).unlink(missing_ok=True)
            for directory in (self._records, self.stacks, self.directory):
                directory.rmdir()

    def read(self, rank: int) -> RankRecord | None:
        """A rank's record; None if there is none that can be read."""
        return _read(self._record(rank))

    def read_all(self) -> list[RankRecord]:
        """The records of all ranks that have one, by rank."""
        found = [record for path in self._records.glob("rank-*.json") if (record := _read(path)) is not None]
        return sorted(found, key=lambda record: record.rank)

    def stacks_of(self, rank: int) -> Path:
        """Where a rank writes its stacks."""
        return self.stacks / f"rank-{rank:05d}.txt"

    def collectives_of(self, rank: int) -> Path:
        """Where a rank writes its last collectives, if its backend records them."""
        return self.stacks / f"rank-{rank:05d}.collectives.json"

    def mark(self, text: str) -> None:
        """Say that a hang was found; several ranks may."""
        with contextlib.suppress(UserError, OSError):
            atomic_write_text(self._mark, text)

    def unmark(self) -> None:
        """Take that back."""
        with contextlib.suppress(OSError):
            self._mark.unlink(missing_ok=True)

    def first_to_speak(self) -> bool:
        """True for the first process that asks: one of them says for all what hangs."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._spoken, os.O_CREAT | os.O_EXCL))
            return True
        return False

    def start_anew(self) -> None:
        """Forget what an earlier start in the same directory has said."""
        for path in (self._mark, self._spoken):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    @property
    def marked(self) -> str:
        """What :meth:`mark` said; empty if nothing."""
        try:
            return self._mark.read_text(encoding="utf-8")
        except OSError:
            return ""

    def _record(self, rank: int) -> Path:
        return self._records / f"rank-{rank:05d}.json"


def _read(path: Path) -> RankRecord | None:
    with contextlib.suppress(OSError, ValueError):
        return RankRecord.from_bytes(path.read_bytes(), path.stat().st_mtime)
    return None
