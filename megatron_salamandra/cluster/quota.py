"""What a user may still write where a run goes, as the site's own quota command tells it."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.cluster.slurm_command import SlurmAbsent, SlurmError, SlurmSilent, answer

_ANSWER_SECONDS = 20.0
_KIB = 1024
# Of `quota -wp` and `lfs quota`: file system, KiB used, soft and hard limit, grace, then the same of files.
_ROW = re.compile(
    r"(?P<place>\S+)\s+\[?(?P<used>\d+)[\]*]*\s+(?P<soft>\d+)\s+(?P<hard>\d+)\s+\S+"
    r"\s+\[?(?P<files>\d+)[\]*]*\s+(?P<files_soft>\d+)\s+(?P<files_hard>\d+)"
)


@dataclass(frozen=True)
class Quota:
    """What is left of a quota.

    Attributes:
        command: that told it.
        bytes_left: None without a limit.
        files_left: None without a limit.
    """

    command: str
    bytes_left: int | None
    files_left: int | None


class QuotaUnknown(Exception):
    """A quota command is there and did not answer in time."""


def read_quota(path: Path) -> Quota | None:
    """The tightest quota of this user for a place that exists; None where no command tells one.

    Asks ``lfs quota`` (Lustre), ``mmlsquota`` (Storage Scale), then ``quota``; the first that knows the place.

    Raises:
        QuotaUnknown: one of them hangs.
    """
    device, point = _mount(path)
    user = getpass.getuser()
    for command, places in (
        (["lfs", "quota", "-q", "-u", user, str(path)], None),
        (["mmlsquota", "-Y", device], None),
        (["quota", "-wp"], (device, point)),
    ):
        try:
            text = answer(command, _ANSWER_SECONDS)
        except SlurmAbsent:
            continue
        except SlurmSilent as error:
            raise QuotaUnknown(str(error)) from error
        except SlurmError:  # another kind of file system
            continue
        rows = list(_scale_rows(text) if command[0] == "mmlsquota" else _rows(text, places))
        if rows:
            return Quota(
                " ".join(command),
                _least(_left(used, soft, hard, _KIB) for (used, soft, hard), _ in rows),
                _least(_left(used, soft, hard, 1) for _, (used, soft, hard) in rows),
            )
    return None


_Triple = tuple[int, int, int]


def _rows(text: str, places: tuple[str, str] | None) -> Iterator[tuple[_Triple, _Triple]]:
    # Names of file systems that are too long for their column stand on a line of their own.
    for found in _ROW.finditer(text):
        if places is None or found["place"] in places:
            yield (
                (int(found["used"]), int(found["soft"]), int(found["hard"])),
                (int(found["files"]), int(found["files_soft"]), int(found["files_hard"])),
            )


def _scale_rows(text: str) -> Iterator[tuple[_Triple, _Triple]]:
    """``mmlsquota -Y``: colons between fields, and a HEADER line that names them; sizes in KiB."""
    names: list[str] = []
    for line in text.splitlines():
        fields = line.split(":")
        if "HEADER" in fields:
            names = fields
            continue
        row = dict(zip(names, fields, strict=False))
        try:
            yield (
                (int(row["blockUsage"]), int(row["blockQuota"]), int(row["blockLimit"])),
                (int(row["filesUsage"]), int(row["filesQuota"]), int(row["filesLimit"])),
            )
        except (KeyError, ValueError):
            continue


def _left(used: int, soft: int, hard: int, unit: int) -> int | None:
    limit = hard or soft
    return max(0, limit - used) * unit if limit else None


def _least(values: Iterator[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _mount(path: Path) -> tuple[str, str]:
    """Device and mount point of the file system of a place."""
    place, found = os.path.realpath(path), ("", "/")
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        device, point = (part.replace("\\040", " ") for part in line.split()[:2])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[1]):
            found = (device, point)
    return found
