"""SIGKILL at an exact place of a run, from inside: no part of the trainer knows of it. Standard library only.

A place is where a rank says that it is (``PROGRESS``), or the Nth time that it touches a file of a certain name. The
second is found by an audit hook, which the interpreter asks before every ``open``, ``rename``, ``mkdir`` and so on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "SALAMANDRA_TEST_KILL"
"""Carries the point to every process of a run."""
PROGRESS_MODULE = "megatron_salamandra.hangs.progress"
_TOUCHES = frozenset(("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"))


@dataclass(frozen=True)
class KillPoint:
    """Where a run is killed, and who.

    Attributes:
        book: directory for the numbers of the run's processes, and for the sign that the point was reached.
        rank: which one comes to the point.
        part, step, detail: what the rank says it is in; any step and any detail if not given.
        file: part of the path of a file that it touches; instead of ``part``.
        nth: the Nth time, from 1.
        later: so many touches of files below ``within`` later.
        within: files that ``later`` counts.
        in_writer: the point is in a process that the rank has forked, which writes a checkpoint.
        victims: ``self``, ``rank``, ``ranks``, ``launcher``, ``all``, or ``writers``: what the rank has forked.
    """

    book: str
    rank: int
    victims: str
    part: str = ""
    step: int | None = None
    detail: str = ""
    file: str = ""
    nth: int = 1
    later: int = 0
    within: str = ""
    in_writer: bool = False

    def to_text(self) -> str:
        """For an environment variable."""
        return json.dumps(asdict(self))

    @property
    def reached(self) -> bool:
        """Whether the run came there."""
        return (Path(self.book) / "reached").exists()


def install(point: KillPoint, rank: int) -> None:
    """Have this rank, and what it forks, be killed at the point."""
    os.makedirs(point.book, exist_ok=True)
    (Path(point.book) / f"rank-{rank}").write_text(str(os.getpid()))
    if rank == point.rank:
        (Path(point.book) / "launcher").write_text(str(os.getppid()))
        _Trigger(point).arm()


def install_from_environment() -> None:
    """As :func:`install`, in a process that a launcher has started as a rank."""
    text = os.environ.get(VARIABLE)
    # Helpers of a rank inherit its environment.
    if text and os.environ.get("RANK", "").isdecimal() and "megatron_salamandra.train" in sys.orig_argv:
        install(KillPoint(**json.loads(text)), int(os.environ["RANK"]))


class _Trigger:
    def __init__(self, point: KillPoint) -> None:
        self._point = point
        self._rank_pid = os.getpid()
        self._seen = 0
        self._left: int | None = None
        self._busy = self._forked = self._wrapped = False

    def arm(self) -> None:
        os.register_at_fork(after_in_child=self._in_child)
        if self._point.part and PROGRESS_MODULE in sys.modules:
            self._wrap()
        sys.addaudithook(self._heed)

    def _in_child(self) -> None:
        self._forked = True

    def _heed(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        if self._point.part:
            if not self._wrapped and event == "open":
                self._wrap()
            return
        if event not in _TOUCHES or self._forked != self._point.in_writer:
            return
        paths = [os.fsdecode(path) for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike)]
        if self._left is not None:
            if any(self._point.within in path for path in paths):
                self._left -= 1
        elif any(self._point.file in path for path in paths):
            self._seen += 1
            if self._seen == self._point.nth:
                self._left = self._point.later
        if self._left is not None and self._left <= 0:
            self._kill()

    def _wrap(self) -> None:
        progress = getattr(sys.modules.get(PROGRESS_MODULE), "PROGRESS", None)
        if progress is None:
            return
        self._wrapped, real, point = True, progress.enter, self._point

        def enter(part: Any, detail: str = "", *, step: int | None = None) -> None:
            real(part, detail, step=step)
            now = progress.place
            if (
                not self._forked
                and now.part.value == point.part
                and point.step in (None, now.step)
                and point.detail in now.detail
            ):
                self._seen += 1
                if self._seen == point.nth:
                    self._kill()

        progress.enter = enter

    def _kill(self) -> None:
        self._busy = True
        book = Path(self._point.book)
        victims = self._victims(book)
        (book / "reached").write_text(f"{sys.argv} {victims}")
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._left, self._seen = sys.maxsize, sys.maxsize // 2
        self._busy = False

    def _victims(self, book: Path) -> list[int]:
        kind = self._point.victims
        if kind == "self":
            return [os.getpid()]
        if kind == "rank":
            return [self._rank_pid]
        if kind == "launcher":
            return [int((book / "launcher").read_text())]
        if kind == "writers":
            return _children(self._rank_pid)
        ranks = [int(path.read_text()) for path in book.glob("rank-*")]
        ordered = [pid for pid in ranks if pid != self._rank_pid] + [self._rank_pid]
        return [int((book / "launcher").read_text()), *ordered] if kind == "all" else ordered


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        try:
            if (
                path.name.isdecimal()
                and int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid
            ):
                found.append(int(path.name))
        except OSError:
            continue
    return found
