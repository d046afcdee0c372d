"""A rank's own watchdog: writes its record, its stacks on request, and ends it when it stays somewhere too long.

Two threads, because a file system may stand still as well: one judges by memory alone, the other writes. The time that
counts is time in which the process ran: one that was stopped and continued, as a suspended job is, was not late.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from megatron_salamandra.foundation.exit_codes import EXIT_HUNG
from megatron_salamandra.hangs.progress import PROGRESS, Limits, Part, Place
from megatron_salamandra.hangs.records import END_OF_STACKS, RankRecord, RoundFiles
from megatron_salamandra.run_directory import RunDirectory

_MOST_SECONDS = 10.0
"""Between two records; so long a request for stacks may wait."""
_LAST_WORDS_SECONDS = 5.0


class Watchdog:
    """Watches this process until :meth:`stop`.

    Args:
        directory: of the run. Nothing is written as long as there is none.
        files: of this round.
        rank, world: which of how many.
        limits: how long the rank may stay where it is.
        last_words: called with a sentence before the process is ended.
        end: ends it.
    """

    def __init__(
        self,
        directory: RunDirectory,
        files: RoundFiles,
        rank: int,
        world: int,
        limits: Limits,
        last_words: Callable[[str], object],
        *,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._directory, self.files = directory, files
        self._rank, self._world = rank, world
        self._limits = limits
        self._last_words = last_words
        self._end = end
        shortest = limits.shortest() or 10 * _MOST_SECONDS
        self.every_seconds = min(_MOST_SECONDS, max(0.1, shortest / 10))
        self._tick = min(1.0, self.every_seconds / 2)
        # The others look for the request for their stacks once an interval, and need a moment for them.
        self.grace_seconds = 2 * self.every_seconds + 1.0
        self._seconds = 0.0
        self._found: Place | None = None
        self._wanted_at_start = _changed(directory.stacks_wanted)
        if rank == 0:
            files.start_anew()
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._stacks: IO[str] | None = None
        self._threads = [
            threading.Thread(target=self._judge, name="watchdog", daemon=True),
            threading.Thread(target=self._keep_record, name="progress-record", daemon=True),
        ]

    def __enter__(self) -> Watchdog:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop watching; the record of a rank that ends by itself is removed."""
        self._stopped.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=_LAST_WORDS_SECONDS)
        if self._stacks is not None:
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()
        if not self.found:
            self.files.forget(self._rank)

    @property
    def found(self) -> str:
        """Which hang this rank or another one has found, in a sentence; empty if none."""
        return self._sentence(self._found) if self._found is not None else self.files.marked

    def give_up(self) -> None:
        """Say, as when the rank overstays, that it has waited too long where it is; it goes on, to end by itself.

        For a rank whose collective gave up: the others are asked for their stacks, and those that are late are named.
        """
        if self.found:
            return
        self._found = PROGRESS.place
        self._wake.set()
        self._stopped.wait(self.grace_seconds)
        self._speak(self._found)

    def _judge(self) -> None:
        waited: dict[object, float] = {}
        last = time.monotonic()
        while not self._stopped.wait(self._tick):
            now = time.monotonic()
            ran = min(now - last, 3 * self._tick)
            last = now
            place, what = PROGRESS.place, PROGRESS.timed_as()
            # Only the start goes on after a save or a validation in between.
            waited = {key: seconds for key, seconds in waited.items() if key in (what, Part.START)}
            waited[what] = waited.get(what, 0.0) + ran
            self._seconds = waited[what]
            limit = PROGRESS.limit(self._limits)
            if limit is not None and self._seconds > limit:
                self._overstayed(place)
                waited.clear()
                last = time.monotonic()

    def _overstayed(self, place: Place) -> None:
        self._found = place
        self._wake.set()
        end = time.monotonic() + self.grace_seconds
        while time.monotonic() < end:
            if self._stopped.wait(self._tick):
                return
            if PROGRESS.place is not place:  # it was slow, and moves again
                self._found = None
                self.files.unmark()
                return
        self._speak(place)
        self._end(EXIT_HUNG)

    def _speak(self, place: Place) -> None:
        words = threading.Thread(target=self._last_words, args=(self._sentence(place),), daemon=True)
        words.start()
        words.join(timeout=_LAST_WORDS_SECONDS)

    def _sentence(self, place: Place) -> str:
        return f"rank {self._rank} on {socket.gethostname()}: {place} for {self._seconds:.0f} s"

    def _keep_record(self) -> None:
        answered, told, written = self._wanted_at_start, False, time.monotonic()
        while not self._stopped.is_set():
            self._wake.wait(self.every_seconds)
            self._wake.clear()
            if self._stopped.is_set() or not self._directory.path.is_dir():
                continue
            with contextlib.suppress(OSError):
                if self._stacks is None:
                    self.files.prepare()
                    self._stacks = self.files.stacks_of(self._rank).open("a", encoding="utf-8")
                if time.monotonic() - written > 3 * self.every_seconds + 1.0 and self.files.marked:
                    continue  # woken to be ended, as SLURM does: the old record says since when it was frozen
                self.files.write(self._record())
                written = time.monotonic()
                self._dump_if_nobody_else_can(self._stacks)
                found = self._found
                wanted = _changed(self._directory.stacks_wanted)
                if (found is not None and not told) or wanted != answered:
                    if found is not None and not told:
                        self.files.mark(self._sentence(found))
                        self._directory.stacks_wanted.touch()  # of all ranks, also those that are not late
                        wanted = _changed(self._directory.stacks_wanted)
                    answered = wanted
                    self._write_stacks(self._stacks)
                told = found is not None

    def _record(self) -> RankRecord:
        collectives = None
        with contextlib.suppress(Exception):  # groups may be on their way out
            collectives = None if PROGRESS.count_collectives is None else PROGRESS.count_collectives()
        return RankRecord(
            self._rank,
            self._world,
            socket.gethostname(),
            os.getpid(),
            PROGRESS.peers,
            PROGRESS.place,
            round(self._seconds, 1),
            collectives,
            self.every_seconds,
        )

    def _write_stacks(self, stream: IO[str]) -> None:
        stream.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {self._sentence(PROGRESS.place)}\n")
        stream.flush()
        faulthandler.dump_traceback(file=stream, all_threads=True)
        stream.write(f"{END_OF_STACKS}\n")
        stream.flush()
        if PROGRESS.write_collectives is not None:
            with contextlib.suppress(Exception):  # a library's own, while it may be in any state
                PROGRESS.write_collectives(self.files.collectives_of(self._rank))

    def _dump_if_nobody_else_can(self, stream: IO[str]) -> None:
        """Have the stacks written without the interpreter's lock, should something hold that for ever."""
        limit = PROGRESS.limit(self._limits)
        if limit is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            left = max(0.0, limit - self._seconds) + self.grace_seconds + self.every_seconds
            faulthandler.dump_traceback_later(left, file=stream)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
