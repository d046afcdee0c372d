"""``.owner``: which process a run directory belongs to, and whether that process is known to live or to be dead."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OwnerRecord:
    """Who took a run directory, and when.

    Attributes:
        token: of this taking alone.
        host, pid: the process that is rank 0.
        since: when it took the directory, ISO 8601 with time zone.
        job, round: SLURM's job number and how often it was requeued before; empty and 0 without SLURM.
        boot, namespace, process_start: what makes the process number unique: the boot of its kernel, its process
            namespace (containers have their own), and the moment of its start in clock ticks after the boot.
    """

    token: str
    host: str
    pid: int
    since: str
    job: str
    round: int
    boot: str
    namespace: str
    process_start: int

    @classmethod
    def of_this_process(cls) -> OwnerRecord:
        """A record with a new token."""
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now().astimezone().isoformat(" ", "seconds"),
            job=os.environ.get("SLURM_JOB_ID", ""),
            round=int(os.environ.get("SLURM_RESTART_COUNT") or "0"),
            boot=_boot(),
            namespace=_namespace(),
            process_start=_start_of(os.getpid()) or 0,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OwnerRecord:
        """The record that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is another object.
        """
        texts = {name: str(values[name]) for name in ("token", "host", "since", "job", "boot", "namespace")}
        numbers = {name: int(values[name]) for name in ("pid", "round", "process_start")}
        return cls(**texts, **numbers)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return asdict(self)

    @property
    def description(self) -> str:
        """For messages: ``process 7 on node2 since 2026-01-02 03:04:05+00:00, job 12``."""
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host} since {self.since}{job}"

    @property
    def lives(self) -> bool | None:
        """Whether the process lives; None where only its own host could say."""
        if (self.boot, self.namespace) != (_boot(), _namespace()):
            return None
        return _start_of(self.pid) == self.process_start

    @property
    def is_this_process(self) -> bool:
        """True if the record was made by the process that asks."""
        return self.pid == os.getpid() and self.lives is True

    def is_of_an_earlier_round(self) -> bool:
        """True if SLURM has ended this owner: it is of the job that runs here, before it was requeued."""
        here = OwnerRecord.of_this_process()
        return bool(self.job) and self.job == here.job and self.round < here.round


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_of(pid: int) -> int | None:
    """When a process of this host started, in clock ticks after the boot; None if there is none, or it has ended."""
    try:
        # The name stands in parentheses and may hold anything, so what follows is counted from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
