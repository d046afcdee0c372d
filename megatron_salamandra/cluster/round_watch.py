"""The ranks of a round as their launcher sees them: whether they move, and who holds up the others if they do not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.cluster.control import Beat, ControlFiles
from megatron_salamandra.config import HangSection
from megatron_salamandra.hangs import Hang, RoundFiles, describe_hang
from megatron_salamandra.run_directory import RunDirectory

_MARGIN_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_GAP_SECONDS = 5.0
"""More than this between two looks does not count: the job is suspended, or the file system stood still."""
_MOST_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Watch:
    """When a round counts as hung. The ranks know better and are faster; this is for those that no longer run.

    Attributes:
        start_seconds: from its start to the first beat.
        beat_seconds: between two beats where the ranks do not say how long they may take.
        leave_seconds: from the end of rank 0, or of the first rank that failed, to the end of all ranks.
    """

    start_seconds: float = 1800.0
    beat_seconds: float = 300.0
    leave_seconds: float = 60.0

    @classmethod
    def later_than(cls, ranks: HangSection) -> Watch:
        """A watch that leaves ranks the time to find their hang themselves."""
        return cls(with_margin(ranks.start_seconds), with_margin(ranks.step_seconds))


def with_margin(seconds: float | None) -> float:
    """Somewhat more time than a rank has; for ever for None."""
    return float("inf") if seconds is None else seconds + min(_MARGIN_SECONDS, 10.0 + seconds / 4)


class RoundWatch:
    """Looks at a run's heartbeat again and again.

    Only time counts in which it could look: a file system that does not answer says nothing about the ranks. Times of
    files are compared with each other, never with this host's clock.
    """

    def __init__(
        self,
        directory: RunDirectory,
        round_directory: Path,
        watch: Watch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.files = RoundFiles(round_directory)
        self._directory = directory
        self._control = ControlFiles(directory.path)
        self._watch = watch
        self._clock = clock
        self._still = 0.0
        self._looked: float | None = None
        self._next = 0.0
        self._known = False
        self._beat: Beat | None = None
        self._begun = False

    def is_still(self) -> bool:
        """Whether no beat has come for too long; looks at most once a second."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _LOOK_SECONDS
        try:
            beat = self._control.last_beat()
        except OSError:
            self._looked = None
            return False
        after = self._clock()
        if self._looked is not None and after - self._looked < _GAP_SECONDS:
            self._still += now - self._looked
        self._looked = after
        if not self._known:
            self._known, self._beat = True, beat  # of an earlier round
        elif beat != self._beat:
            self._beat, self._begun, self._still = beat, True, 0.0
        return self._still > self._patience()

    def _patience(self) -> float:
        if not self._begun or self._beat is None:
            return self._watch.start_seconds
        within = self._beat.within_seconds
        return self._watch.beat_seconds if within is None else with_margin(within)

    def who_is_late(self) -> Hang:
        """Ask all ranks for their stacks, give them a moment, and name those that hold up the others."""
        with contextlib.suppress(OSError):
            self._directory.stacks_wanted.touch()
        every = max((record.every_seconds for record in self.files.read_all()), default=None)
        if every is not None:
            time.sleep(min(_MOST_ANSWER_SECONDS, 2 * every + 1.0))
        return describe_hang(self.files) or Hang((), "no step for too long, and no rank says where it stands")

    def found_by_ranks(self) -> Hang | None:
        """What ranks that hung had found before they ended; None if they did not hang."""
        return describe_hang(self.files) if self.files.marked else None
