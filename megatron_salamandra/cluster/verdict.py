"""Why a round ended: one pure function over everything that is known at its end."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from megatron_salamandra.cluster.rounds import Cause, RankFailure
from megatron_salamandra.cluster.slurm import JobNow
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED, EXIT_USAGE


@dataclass(frozen=True)
class RoundEnd:
    """What is known when a round has ended.

    Attributes:
        code: what rank 0 said; None if it said nothing.
        step_code: of srun; negative for a signal.
        failure: the first rank that failed.
        done: whether every step of the run is trained and saved.
        hung: whether the supervisor ended it for its silence.
        signalled: whether the ranks were asked to stop because SLURM wanted it, or the time limit was near.
        requested: whether a person or the configuration stopped it.
        job: what SLURM says now; None if it does not answer.
        restarts: how often the job had been started again when this supervisor began.
        limit_passed: whether the time limit is over.
        lost: hosts that do not answer.
    """

    code: int | None
    step_code: int | None
    failure: RankFailure | None
    done: bool
    hung: bool
    signalled: bool
    requested: bool
    job: JobNow | None
    restarts: int
    limit_passed: bool
    lost: tuple[str, ...]


def cause_of(end: RoundEnd) -> Cause:
    """Why it ended; the strongest reason, where there are several."""
    code = end.code
    if code is None and end.failure is None and end.step_code == 0:
        # Nothing was said because nothing could be written: srun was content, so the ranks were as well.
        code = EXIT_DONE if end.done else EXIT_STOPPED if end.signalled or end.requested else None
    if code == EXIT_DONE and end.done:
        return Cause.DONE
    if code == EXIT_USAGE:
        return Cause.CONFIGURATION
    if (ended := _ended_by_slurm(end)) is not None:
        return ended
    if code == EXIT_DONE:
        return Cause.REQUESTED
    if code == EXIT_STOPPED:
        return Cause.REQUESTED if end.requested else Cause.STOPPED
    if end.signalled and not end.lost and code is None and _killed_by_usr1(end):
        return Cause.STOPPED  # the signal came before Python had a handler: nothing was begun
    if end.lost:
        return Cause.NODE
    if end.hung:
        return Cause.HANG
    return Cause.LIMIT if end.limit_passed else Cause.CRASH


def _ended_by_slurm(end: RoundEnd) -> Cause | None:
    job = end.job
    if job is None:
        return None
    if job.restarts > end.restarts or job.preempted or job.state in ("PENDING", "REQUEUED", "PREEMPTED"):
        return Cause.PREEMPTED
    if job.lives:
        return None
    if job.reason == "TimeLimit" or job.state == "TIMEOUT":
        return Cause.LIMIT
    return Cause.NODE if job.state == "NODE_FAIL" else Cause.CANCELLED


def _killed_by_usr1(end: RoundEnd) -> bool:
    number = signal.SIGUSR1
    by_rank = end.failure is not None and end.failure.code == 128 + number
    return by_rank or (end.failure is None and end.step_code in (-number, 128 + number))
