"""The end of a job: back into the queue, or for good."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from megatron_salamandra.cluster.job_calendar import JobCalendar
from megatron_salamandra.cluster.rounds import Action, Decision
from megatron_salamandra.cluster.slurm import SlurmJob, is_refused
from megatron_salamandra.cluster.slurm_command import SlurmError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE

_WAITS_SECONDS = (2.0, 5.0, 10.0, 20.0, 60.0)
_PATIENCE_SECONDS = 1800.0
_EXCLUDE_SECONDS = 3.0


class JobEnd:
    """Does what was decided, with a controller that may be away.

    Args:
        calendar: what SLURM says of the job.
        say: writes a line to the job's log.
        at_end: is done before the job ends or goes back into the queue, unless its nodes are being taken back.
    """

    def __init__(
        self, job: SlurmJob, calendar: JobCalendar, say: Callable[[str], None], at_end: Callable[[], None]
    ) -> None:
        self._job, self._calendar, self._say, self._at_end = job, calendar, say, at_end

    def leave(self, decision: Decision, *, preempted: bool = False) -> int:
        """Do it; the exit code of this process, and so of the job.

        Args:
            preempted: SLURM takes the nodes back; where it would not start the job again by itself, that is asked for.
        """
        if not preempted:
            self._at_end()
        if decision.action is Action.REQUEUE:
            return self._requeue(decision)
        if preempted:
            self._calendar.look()
            if self._calendar.now.lives and self._calendar.now.restarts == self._job.restarts:
                # Only the grace time runs. A job that ended now would be complete for SLURM.
                return self._requeue(decision)
        return decision.exit_code

    def _requeue(self, decision: Decision) -> int:
        # Requeueing sends SIGTERM to this process; there is nothing left to ask of the ranks.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        exclude = self._can_do_without(decision.exclude)
        end, tries = time.monotonic() + _PATIENCE_SECONDS, 0
        while True:
            try:
                self._job.requeue()
                break
            except SlurmError as error:
                self._calendar.look()
                if self._is_back():
                    break  # by somebody else, or by a request whose answer was lost
                if is_refused(error) or time.monotonic() > end:
                    self._say(
                        f"the job could not go back into the queue: {error}\n  submit the same command again"
                    )
                    return EXIT_FAILURE
                wait = _WAITS_SECONDS[min(tries, len(_WAITS_SECONDS) - 1)]
                tries += 1
                self._say(
                    f"the job could not go back into the queue yet: {error}; trying again in {wait:.0f} s"
                )
                time.sleep(wait)
                self._calendar.look()
                if self._is_back():
                    break
                if self._calendar.answers and not self._calendar.now.lives:
                    # Such as cancelled: whoever did that does not want it back.
                    self._say(
                        f"the job is {self._calendar.now.state} now, and does not go back into the queue"
                    )
                    return EXIT_FAILURE
        if exclude:
            self._exclude(exclude)
        return EXIT_DONE

    def _is_back(self) -> bool:
        return self._calendar.answers and self._calendar.now.restarts > self._job.restarts

    def _can_do_without(self, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """``hosts``, or none where too few others are there: the job would wait for ever, however well they get."""
        needed = len(self._job.nodes)
        try:
            if not hosts or (others := self._job.nodes_beside(hosts)) >= needed:
                return hosts
        except SlurmError:
            return hosts
        self._say(
            f"{', '.join(hosts)} may be taken again: the job needs {needed} nodes, and there are {others} others"
        )
        return ()

    def _exclude(self, hosts: tuple[str, ...]) -> None:
        """Only a job that waits takes other nodes, so after it went back: SLURM leaves some seconds until it kills."""
        end = time.monotonic() + _EXCLUDE_SECONDS
        while True:
            try:
                self._job.exclude(hosts)
                return
            except SlurmError as error:
                if time.monotonic() > end:
                    self._say(f"the next allocation may have {', '.join(hosts)} again: {error}")
                    return
                time.sleep(0.5)
