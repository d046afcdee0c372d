"""What SLURM says about this job, asked now and then: limits move, jobs are suspended, the controller goes away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType

from megatron_salamandra.cluster.slurm import JobNow, SlurmJob
from megatron_salamandra.cluster.slurm_command import SlurmError

_NOTHING_KNOWN = JobNow("RUNNING", "", 0, False, None, None, None, True)
_WAITS_SECONDS = (5.0, 10.0, 30.0, 60.0)


class JobCalendar:
    """The job as SLURM showed it last.

    A thread asks, because a controller that is away makes every question last.

    Args:
        look_seconds: between two questions.
    """

    def __init__(self, job: SlurmJob, look_seconds: float) -> None:
        self._job, self._look_seconds = job, look_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="job-calendar", daemon=True)
        self.end: float | None = None
        """Of the time limit, as it was while the job was running, in seconds since 1970; None without one."""
        self.now = _NOTHING_KNOWN
        self.answers = False
        """Whether SLURM answered the last question."""

    def __enter__(self) -> JobCalendar:
        self.look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def look(self) -> None:
        """Ask now."""
        try:
            now = self._job.now()
        except SlurmError:
            self.answers = False
            return
        # Once somebody ends the job, SLURM writes the end that it got, not the one that it had.
        if now.state == "RUNNING":
            self.end = now.end
        self.now, self.answers = now, True

    def seconds_left(self) -> float | None:
        """Before the time limit; None without one."""
        return None if self.end is None else self.end - time.time()

    def await_answer(self, say: Callable[[str], None], stop: Callable[[], bool]) -> None:
        """Wait until SLURM answers, for srun could start nothing before, or until ``stop`` says so."""
        tries = 0
        self.look()
        while not self.answers and not stop():
            wait = _WAITS_SECONDS[min(tries, len(_WAITS_SECONDS) - 1)]
            tries += 1
            say(f"SLURM does not answer: asking again in {wait:.0f} s")
            deadline = time.monotonic() + wait
            while time.monotonic() < deadline and not stop():
                time.sleep(0.2)
            self.look()

    def _keep_looking(self) -> None:
        while not self._ended.wait(self._look_seconds):
            with contextlib.suppress(OSError):
                self.look()
