"""The rounds of a run, and what follows on each: one pure function with a memory.

A run on a cluster is a series of rounds. A round is one start of all ranks; it ends because training is done, because
somebody or something asked it to stop, or because something broke. ``rounds.jsonl`` in the run directory has a line for
each, and :func:`decide` reads them all, so that a run goes on after what passes, and never in circles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """Why a round ended."""

    DONE = "done"
    """Every step of the run was trained and saved."""
    STOPPED = "stopped"
    """Saved and left before the time limit of the job."""
    REQUESTED = "requested"
    """Saved and left because a person asked for it, or the configuration did (training.stop_after_steps)."""
    CONFIGURATION = "configuration"
    """The command or the configuration cannot be used."""
    CRASH = "crash"
    """A rank failed or was killed."""
    HANG = "hang"
    """No rank had done a step for too long."""
    NODE = "node"
    """A node stopped answering."""
    LIMIT = "limit"
    """Killed at the time limit without having saved."""
    PREEMPTED = "preempted"
    """The scheduler took the nodes back and will start the job again by itself."""
    CANCELLED = "cancelled"
    """Somebody cancelled the job."""
    LOST = "lost"
    """Not known: its supervisor was killed, or the host of it lost its power. Written by the next supervisor."""


class Action(StrEnum):
    """What is done after a round."""

    END = "end"
    """The run is over, or a person has to look at it."""
    RESTART = "restart"
    """Another round at once, inside the same allocation."""
    REQUEUE = "requeue"
    """Another round in a new allocation of the same job."""
    LEAVE = "leave"
    """Nothing: the scheduler starts the job again, or the next job of the chain waits already."""


@dataclass(frozen=True)
class RankFailure:
    """The first rank that failed in a round.

    Attributes:
        rank: its number; -1 if it is not known.
        host: where it ran; empty if that is not known.
        code: its exit code; 128 plus its number for a signal.
        message: what it said last, one or a few lines.
    """

    rank: int
    host: str
    code: int
    message: str


@dataclass(frozen=True)
class Outcome:
    """How a round ended.

    Attributes:
        code: exit code that the ranks agreed on (rank 0's); None if there was none to be had.
        first_step, last_step: the run's last trained step before and after the round.
        saved_step: step of the newest complete checkpoint after the round.
        failure: of the first rank that failed; None if none did.
        suspects: hosts that are known to be bad: they do not answer, hang, or failed the node check.
    """

    cause: Cause
    code: int | None
    first_step: int
    last_step: int
    saved_step: int
    failure: RankFailure | None = None
    suspects: tuple[str, ...] = ()

    @property
    def made_progress(self) -> bool:
        """Whether the next round starts further than this one did: saved steps count, trained ones are repeated."""
        return self.saved_step > self.first_step


@dataclass(frozen=True)
class Decision:
    """What follows on a round.

    Attributes:
        wait_seconds: before it is done.
        exclude: hosts that the next round keeps away from.
        exit_code: of the job, if it ends here.
        reason: one sentence for the log and the report.
    """

    action: Action
    reason: str
    wait_seconds: float = 0.0
    exclude: tuple[str, ...] = ()
    exit_code: int = 0


@dataclass(frozen=True)
class Round:
    """One line of ``rounds.jsonl``.

    Attributes:
        number: from 1, over all jobs of the run.
        job: the scheduler's number of the job, as text.
        started, ended: UTC, ISO 8601.
        hosts: that ran ranks; none if too few nodes were fit.
        findings: what the node check found before it, a line for each node that is not good.
    """

    number: int
    job: str
    started: str
    ended: str
    hosts: tuple[str, ...]
    outcome: Outcome
    decision: Decision
    findings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Round:
        """The round that :meth:`to_dict` described.

        Raises:
            ValueError: it is not one.
        """
        try:
            outcome, decision = dict(entry["outcome"]), dict(entry["decision"])
            failure = outcome.pop("failure")
            return cls(
                int(entry["number"]),
                str(entry["job"]),
                str(entry["started"]),
                str(entry["ended"]),
                tuple(entry["hosts"]),
                Outcome(
                    **{
                        **outcome,
                        "cause": Cause(outcome["cause"]),
                        "suspects": tuple(outcome["suspects"]),
                        "failure": RankFailure(**failure) if failure else None,
                    }
                ),
                Decision(
                    **{
                        **decision,
                        "action": Action(decision["action"]),
                        "exclude": tuple(decision["exclude"]),
                    }
                ),
                tuple(entry.get("findings", ())),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a round: {error!r}") from error


@dataclass(frozen=True)
class Allocation:
    """What the job has for another round.

    Attributes:
        job: its number, as text.
        needed_nodes: that a round takes.
        answering: hosts of the allocation that answer now.
        seconds_left: before its time limit; None without one.
        start_seconds: that a start of this run takes, with a step and a save: less is not worth another round.
        may_requeue: whether the site lets a job go back into the queue.
        chained: whether a further job of the run waits in the queue.
    """

    job: str
    needed_nodes: int
    answering: tuple[str, ...]
    seconds_left: float | None = None
    start_seconds: float = 600.0
    may_requeue: bool = True
    chained: bool = False


@dataclass(frozen=True)
class Patience:
    """How long a run that makes no progress is tried again.

    Attributes:
        waits_seconds: before the first, second, ... round after one without progress; the run ends after the last.
        empty_stops: stops in a row without progress that are taken for a loop.
    """

    waits_seconds: tuple[float, ...] = (60.0, 300.0, 900.0)
    empty_stops: int = 2


def decide(
    history: Sequence[Round],
    outcome: Outcome,
    allocation: Allocation,
    patience: Patience = Patience(),  # frozen
) -> Decision:
    """What follows on the round that ended with ``outcome``.

    Args:
        history: the rounds before it, oldest first; of earlier jobs too.
        allocation: what is left of the job.
    Returns:
        the decision; the same for the same arguments, whatever the time.
    """
    if outcome.cause is Cause.DONE:
        return Decision(Action.END, f"training is done at step {outcome.last_step}")
    if outcome.cause is Cause.REQUESTED:
        return Decision(Action.END, f"stopped as asked at step {outcome.last_step}; everything is saved")
    if outcome.cause is Cause.CONFIGURATION:
        return Decision(Action.END, _blame("the command or configuration is refused", outcome), exit_code=2)
    if outcome.cause is Cause.CANCELLED:
        return Decision(Action.END, "the job was cancelled", exit_code=143)
    if outcome.cause is Cause.PREEMPTED:
        return Decision(Action.LEAVE, "preempted: the scheduler starts the job again", exit_code=0)
    if outcome.cause is Cause.STOPPED:
        return _after_stop(history, outcome, allocation, patience)
    return _after_fault(history, outcome, allocation, patience)


def _after_stop(
    history: Sequence[Round], outcome: Outcome, allocation: Allocation, patience: Patience
) -> Decision:
    stops = _in_a_row(history, outcome, lambda past: past.cause is Cause.STOPPED and not past.made_progress)
    if stops >= patience.empty_stops or _empty_rounds(history, outcome) > len(patience.waits_seconds):
        return Decision(
            Action.END,
            f"stopped at step {outcome.saved_step} again, without having trained a step that was saved: give the job "
            "more time, or save more often",
            exit_code=1,
        )
    return _elsewhere(f"saved at step {outcome.saved_step} before the time limit", allocation, ())


def _after_fault(
    history: Sequence[Round], outcome: Outcome, allocation: Allocation, patience: Patience
) -> Decision:
    which = f" ({', '.join(outcome.suspects)})" if outcome.cause is Cause.NODE and outcome.suspects else ""
    reason = _blame(f"{outcome.cause.value}{which} after step {outcome.last_step}", outcome)
    wait = 0.0
    empty = _empty_rounds(history, outcome)
    if empty:
        # The first one counts as well: what fails at its first step fails again at once.
        if empty > len(patience.waits_seconds):
            return Decision(
                Action.END, f"{reason}; {empty} rounds in a row without progress are enough", exit_code=1
            )
        wait = patience.waits_seconds[empty - 1]
    exclude = _excluded(history, outcome, allocation)
    usable = [host for host in allocation.answering if host not in exclude]
    enough_time = allocation.seconds_left is None or allocation.seconds_left > wait + allocation.start_seconds
    if outcome.cause is not Cause.LIMIT and len(usable) >= allocation.needed_nodes and enough_time:
        return Decision(Action.RESTART, reason, wait, exclude)
    return _elsewhere(reason, allocation, exclude, wait)


def _elsewhere(reason: str, allocation: Allocation, exclude: tuple[str, ...], wait: float = 0.0) -> Decision:
    """Go on in another allocation, in whatever way the site allows."""
    if allocation.chained:
        return Decision(Action.LEAVE, f"{reason}; the next job of the chain goes on", exclude=exclude)
    if allocation.may_requeue:
        return Decision(Action.REQUEUE, reason, wait, exclude)
    return Decision(
        Action.END,
        f"{reason}; this site does not put jobs back into the queue: submit the same command again",
        exclude=exclude,
        exit_code=1,
    )


def _excluded(history: Sequence[Round], outcome: Outcome, allocation: Allocation) -> tuple[str, ...]:
    """Hosts to keep away from: those that are known to be bad, now or in an earlier round of this job.

    The host of the rank that failed first is among them only where a spare node takes its place: most crashes are the
    program's fault and would follow it. A host that has held up the others in an earlier round of this job too is bad.
    """
    bad = list(outcome.suspects)
    for past in reversed(history):
        if past.job == allocation.job:
            bad += past.decision.exclude
    usable = [host for host in allocation.answering if host not in bad]
    failed_on = outcome.failure.host if outcome.failure else ""
    hung_before = any(
        past.job == allocation.job
        and past.outcome.cause is outcome.cause is Cause.HANG
        and past.outcome.failure is not None
        and past.outcome.failure.host == failed_on
        for past in history
    )
    if failed_on in usable and (hung_before or len(usable) > allocation.needed_nodes):
        bad.append(failed_on)
    return tuple(dict.fromkeys(bad))


def _empty_rounds(history: Sequence[Round], outcome: Outcome) -> int:
    """Newest rounds in a row without progress, however they ended; preemption is nobody's fault and does not count."""
    counted = [entry for entry in history if entry.outcome.cause is not Cause.PREEMPTED]
    return _in_a_row(counted, outcome, lambda past: not past.made_progress)


def _in_a_row(history: Sequence[Round], outcome: Outcome, matches: Callable[[Outcome], bool]) -> int:
    """How many of the newest outcomes match, this one included."""
    number = 0
    for past in [outcome, *(entry.outcome for entry in reversed(history))]:
        if not matches(past):
            break
        number += 1
    return number


def _blame(what: str, outcome: Outcome) -> str:
    failure = outcome.failure
    if failure is None:
        return what
    if outcome.cause is Cause.HANG:
        return f"{what}; {failure.message.strip()}"
    place = f"rank {failure.rank}" if failure.rank >= 0 else "a rank"
    host = f" on {failure.host}" if failure.host else ""
    message = f": {failure.message.strip()}" if failure.message.strip() else ""
    return f"{what}; {place}{host} ended first with code {failure.code}{message}"
