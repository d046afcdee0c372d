"""A directory as a place for runs: kind of file system, locks, free space, quota, speed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from megatron_salamandra.cluster.quota import QuotaUnknown, read_quota
from megatron_salamandra.doctor.section import guarded
from megatron_salamandra.node_check import Check, State, check_directory

_GIB = 1024.0**3
_PASSING = {
    "tmpfs": "it is in memory: gone with the machine's next start",
    "ramfs": "it is in memory: gone with the machine's next start",
    "overlay": "it is a container's own: gone with the container, and no other node sees it",
}
_LEAST_FILES = 10_000


def storage_checks(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> list[Check]:
    """Checks of the file system of ``directory``; a file is written there and removed."""
    existing = next(
        (place for place in (directory.absolute(), *directory.absolute().parents) if place.exists()),
        Path("/"),
    )
    return [
        *guarded("file system", lambda: _kind(existing, mounts)),
        *guarded("directory", lambda: check_directory(existing)),
        *guarded("quota", lambda: _quota(existing)),
    ]


def file_system(path: Path, mountinfo: str) -> tuple[str, str] | None:
    """Kind and mount point of the file system that ``path`` lies in, by the kernel's table; None if it does not say."""
    best: tuple[str, str] | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or not kinds:
            continue
        point = fields[4].encode().decode("unicode_escape")  # spaces are written \\040
        if (path == Path(point) or Path(point) in path.parents) and (
            best is None or len(point) >= len(best[1])
        ):
            best = (kinds[0], point)
    return best


def _kind(path: Path, mounts: Path) -> Iterator[Check]:
    found = file_system(Path(os.path.realpath(path)), mounts.read_text(errors="replace"))
    if found is None:
        yield Check("file system", State.SKIPPED, f"{mounts} does not name that of {path}")
        return
    kind, point = found
    message = f"{kind}, mounted at {point}"
    if kind in _PASSING:
        yield Check("file system", State.WARNING, f"{message}\n{_PASSING[kind]}")
    else:
        yield Check("file system", State.OK, message)


def _quota(path: Path) -> Iterator[Check]:
    try:
        quota = read_quota(path)
    except QuotaUnknown as error:
        yield Check("quota", State.WARNING, str(error))
        return
    if quota is None:
        yield Check("quota", State.SKIPPED, "no quota command tells one")
        return
    told = [f"{quota.bytes_left / _GIB:.1f} GiB left"] if quota.bytes_left is not None else []
    told += [f"{quota.files_left} files left"] if quota.files_left is not None else []
    short = (quota.bytes_left is not None and quota.bytes_left < _GIB) or (
        quota.files_left is not None and quota.files_left < _LEAST_FILES
    )
    yield Check(
        "quota", State.WARNING if short else State.OK, f"{', '.join(told) or 'no limit'} ({quota.command})"
    )
