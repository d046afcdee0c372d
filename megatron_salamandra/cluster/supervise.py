"""In the place of the batch shell: starts rounds, watches them, and does what follows on them.

Python takes this place with ``exec``, so SLURM's signals to the batch shell come here. The ranks of a round are one job
step. Stopping them is asked for by a file first, which rank 0 reads at every step, and by a signal second.
"""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron_salamandra.cluster.control import ControlFiles, JobNote
from megatron_salamandra.cluster.fit_nodes import Fit, NodeCheck, fit_nodes
from megatron_salamandra.cluster.hung_ranks import failure_of, record_hang
from megatron_salamandra.cluster.job_calendar import JobCalendar
from megatron_salamandra.cluster.leaving import JobEnd
from megatron_salamandra.cluster.lost_rounds import lost_rounds, next_number, note_start
from megatron_salamandra.cluster.rank_report import first_failure, read_reports, read_word
from megatron_salamandra.cluster.round_book import RoundBook
from megatron_salamandra.cluster.round_watch import RoundWatch, Watch
from megatron_salamandra.cluster.rounds import (
    Action,
    Allocation,
    Cause,
    Decision,
    Outcome,
    Patience,
    RankFailure,
    Round,
    decide,
)
from megatron_salamandra.cluster.run_state import Progress
from megatron_salamandra.cluster.scheduler_signals import scheduler_signals
from megatron_salamandra.cluster.sentinel import STEP_NAME, Sentinels
from megatron_salamandra.cluster.slurm import SlurmJob, is_leaving, is_lost
from megatron_salamandra.cluster.slurm_command import SlurmError
from megatron_salamandra.cluster.step import Step, srun_command
from megatron_salamandra.cluster.verdict import RoundEnd, cause_of
from megatron_salamandra.foundation.atomic_files import WriteError
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE, EXIT_HUNG
from megatron_salamandra.hangs import Hang
from megatron_salamandra.run_directory import ROUND_DIR, OwnershipLost, RunDirectory, RunOwner, own

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 2.0
_STEPS_GONE_SECONDS = 30.0


@dataclass
class Supervisor:
    """One job's part of a run.

    Args:
        job: the allocation.
        run_dir: of the run.
        command: what every rank runs, after ``srun`` and its options.
        progress: looks how far the run is.
        nodes_per_round: nodes that a round takes; what the job has beyond is spare.
        start_seconds: that a start takes, with a step and a save: less is not worth another round.
        stop_seconds: looks how long before the time limit ranks must be asked to stop, signal or not.
        lead_seconds: between SLURM's signal and the time limit; a job that is not longer gets it at its start.
        chained: a further job of the run waits in the queue.
        look_seconds: between two questions to SLURM about this job.
        node_check: how nodes are looked at before a round; None takes them as they are.
        say: writes a line to the job's log.
        at_end: is done before the job ends or goes back into the queue.
    """

    job: SlurmJob
    run_dir: Path
    command: Sequence[str]
    progress: Callable[[], Progress]
    nodes_per_round: int
    srun_options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    patience: Patience = field(default_factory=Patience)
    start_seconds: float = 600.0
    stop_seconds: Callable[[], float] = lambda: 120.0
    lead_seconds: float = 0.0
    chained: bool = False
    look_seconds: float = 30.0
    node_check: NodeCheck | None = None
    say: Callable[[str], None] = print
    at_end: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._control = ControlFiles(self.run_dir)
        self._book = RoundBook(self.run_dir)
        self._signals: list[str] = []
        self._history: list[Round] = []
        self._calendar = JobCalendar(self.job, self.look_seconds)
        self._end = JobEnd(self.job, self._calendar, self.say, self.at_end)
        self._sentinels = Sentinels(self.job, self.look_seconds)
        self._known = Progress(0, 0, False)
        self._ends_soon = False

    def run(self) -> int:
        """Rounds until the job has nothing more to do; returns its exit code.

        Raises:
            RunDirectoryError: another job looks after this run.
        """
        with scheduler_signals() as self._signals, self._calendar:
            try:
                with own(RunDirectory(self._control.directory), self.run_dir) as owner:
                    return self._rounds(owner)
            except OwnershipLost as error:
                self.say(f"this supervisor was left behind: {error}")
                return EXIT_FAILURE
            finally:
                self._sentinels.end()

    def _rounds(self, owner: RunOwner) -> int:
        if (ended := self._catch_up()) is not None:
            return self._end.leave(ended)
        while True:
            owner.check()
            self._control.note_job(JobNote(self.job.job, self._calendar.end))
            before = self._progress()
            if (ended := self._nothing_to_do(before)) is not None:
                return self._end.leave(ended)
            number = next_number(self._control.directory, self._history)
            started = _now()
            fit = self._fit(number)
            hosts = fit.hosts
            if hosts:
                self.say(
                    f"round {number}: {len(hosts)} nodes ({', '.join(hosts)}), from step {before.saved_step}"
                )
                outcome = self._round(number, hosts, before, owner)
            else:
                outcome = Outcome(Cause.NODE, None, before.saved_step, before.last_step, before.saved_step)
            outcome = replace(outcome, suspects=tuple(dict.fromkeys((*outcome.suspects, *fit.bad))))
            owner.check()
            decision = decide(self._history, outcome, self._allocation(), self.patience)
            self._write(Round(number, self.job.job, started, _now(), hosts, outcome, decision, fit.findings))
            self.say(f"round {number} ended: {decision.reason}; {decision.action.value}")
            if decision.action is not Action.RESTART:
                return self._end.leave(decision, preempted=outcome.cause is Cause.PREEMPTED)
            if decision.wait_seconds and (ended := self._wait(decision.wait_seconds)) is not None:
                return self._end.leave(ended)

    def _catch_up(self) -> Decision | None:
        """Read the rounds and write down those that nobody did; what follows if the run must not go on."""
        self._history = self._book.read()
        now = self._progress()
        asked_at, submitted = self._control.asked_at("stop"), self._calendar.now.submitted
        if self.job.restarts == 0 and asked_at is not None and submitted is not None and asked_at < submitted:
            self._control.forget("stop")  # of an earlier job, which did not live to follow it
        self._control.forget_own()
        decision = None
        for lost in lost_rounds(
            self._control.directory,
            self._history,
            now=_now(),
            last_step=now.last_step,
            saved_step=now.saved_step,
        ):
            decision = decide(self._history, lost.outcome, self._allocation(), self.patience)
            self.say(f"round {lost.number} of job {lost.job} has no end: {lost.decision.reason}")
            self._write(lost)
        return decision if decision is not None and decision.action is Action.END else None

    def _write(self, entry: Round) -> None:
        self._history.append(entry)
        self._book.append(entry)

    def _nothing_to_do(self, before: Progress) -> Decision | None:
        asked = self._control.asked("stop")
        if asked is not None and not asked.again:
            self._control.forget("stop")
            number = next_number(self._control.directory, self._history)
            decision = Decision(Action.END, f"not started: asked to stop by {asked.by}: {asked.reason}")
            outcome = Outcome(Cause.REQUESTED, None, before.saved_step, before.last_step, before.saved_step)
            self._write(Round(number, self.job.job, _now(), _now(), (), outcome, decision))
        elif before.done:
            decision = Decision(Action.END, f"the run is done at step {before.saved_step}: nothing to do")
        else:
            return None
        self.say(decision.reason)
        return decision

    def _fit(self, number: int) -> Fit:
        """Nodes of the next round: not those that earlier rounds of this job excluded, nor those that the node check
        finds unfit; rather those that are well."""
        excluded = {
            host for past in self._history if past.job == self.job.job for host in past.decision.exclude
        }
        states = self._node_states()
        best = sorted(
            self.job.nodes,
            key=lambda host: (host in excluded, is_lost(states[host]), is_leaving(states[host])),
        )
        if self.node_check is None or self._signals:
            return Fit(tuple(sorted(best[: self.nodes_per_round], key=self.job.nodes.index)))
        self._calendar.await_answer(self.say, lambda: bool(self._signals))
        fit = fit_nodes(
            self.node_check,
            [host for host in best if host not in excluded] or best,
            [host for host in best if is_lost(states[host])],
            self.nodes_per_round,
            RunDirectory(self.run_dir).node_check(number),
            self.say,
            lambda: bool(self._signals),
        )
        if fit.bad:
            self._clear_steps(wait=False)  # a check that hangs must not hang beside a rank
        return replace(fit, hosts=tuple(sorted(fit.hosts, key=self.job.nodes.index)))

    def _node_states(self) -> dict[str, str]:
        with contextlib.suppress(SlurmError):
            return self.job.node_states()
        return dict.fromkeys(self.job.nodes, "")

    def _allocation(self) -> Allocation:
        states, now = self._node_states(), self._calendar.now
        usable = [host for host, state in states.items() if not is_lost(state) and not is_leaving(state)]
        return Allocation(
            self.job.job,
            self.nodes_per_round,
            tuple(usable),
            # SLURM has taken its nodes' time back: another round here would be asked to stop by nobody.
            0.0 if self._ends_soon else self._calendar.seconds_left(),
            self.start_seconds,
            may_requeue=now.may_requeue,
            chained=self.chained,
        )

    def _progress(self) -> Progress:
        """How far the run is; what was known last, if the file system does not say."""
        try:
            self._known = self.progress()
        except OSError as error:
            self.say(f"the run directory cannot be read: {error}")
        return self._known

    def _round(self, number: int, hosts: tuple[str, ...], before: Progress, owner: RunOwner) -> Outcome:
        directory = self._control.directory / f"round-{number:04d}"
        # A port of its own each round: a rank that was cut off from an earlier round must not join this one. Below the
        # range from which the kernel hands out client ports.
        port = str(15000 + (int(self.job.job) + 997 * number) % 15000)
        meeting = {"MASTER_ADDR": hosts[0], "MASTER_PORT": port, ROUND_DIR: str(directory)}
        try:
            note_start(directory, self.job.job, _now(), hosts, before.saved_step)
        except WriteError as error:
            failure = RankFailure(-1, "", EXIT_FAILURE, str(error))
            return Outcome(Cause.CRASH, None, before.saved_step, before.last_step, before.saved_step, failure)
        while True:
            self._calendar.await_answer(self.say, lambda: bool(self._signals))
            self._sentinels.post()
            owner.check()  # SLURM may have started the job again elsewhere while it could not be reached
            srun = srun_command(hosts, self.job.tasks_per_node, self.srun_options)
            with Step([*srun, *self.command], {**self.environment, **meeting}) as step:
                watch = RoundWatch(RunDirectory(self.run_dir), directory, self.watch)
                signalled, hang = self._watch(step, directory, watch, owner)
            reports = read_reports(directory)
            began = (
                reports or hang or watch.files.read_all()
            )  # an srun that cannot reach SLURM any more had its ranks
            if not step.slurm_did_not_answer or began or signalled:
                break
            self.say("srun could not reach SLURM: the ranks were not started")
        asked = self._control.taken_up("stop")
        self._control.forget_own()
        self._calendar.look()
        states = self._node_states()
        after = self._progress()
        codes = {report.rank: report.code for report in reports}
        first = first_failure(reports)
        # Ranks that wait for one that crashed hang as well, but that is not why the round ended.
        if hang is None and first is not None and first.code == EXIT_HUNG:
            hang = watch.found_by_ranks() or Hang((), "ranks hung and left no records")
            self.say(f"hang: {hang.text}")
        if hang is not None:
            record_hang(RunDirectory(self.run_dir), hang)
        end = RoundEnd(
            code=codes.get(0),
            step_code=step.code,
            failure=failure_of(hang) if hang else first or step.first_failure(),
            done=after.done,
            hung=hang is not None,
            signalled=signalled,
            requested=not asked.again if asked is not None else bool(read_word(directory)),
            job=self._calendar.now if self._calendar.answers else None,
            restarts=self.job.restarts,
            limit_passed=(left := self._calendar.seconds_left()) is not None and left <= 0,
            lost=tuple(host for host in hosts if is_lost(states[host])),
        )
        cause = cause_of(end)
        if cause not in (Cause.DONE, Cause.STOPPED, Cause.REQUESTED, Cause.CANCELLED, Cause.PREEMPTED):
            self._clear_steps(wait=not end.lost)
        suspects: tuple[str, ...] = ()
        blamed = end.failure
        if cause is Cause.NODE:
            # Whoever did not say why it ended was killed by srun, because the node was gone.
            suspects, blamed = end.lost, first
        return Outcome(
            cause, end.code, before.saved_step, after.last_step, after.saved_step, blamed, suspects
        )

    def _clear_steps(self, *, wait: bool) -> None:
        """No rank of this round may live beside one of the next. A host that is gone never says that its ranks are."""
        with contextlib.suppress(SlurmError):
            self.job.end_steps(but=STEP_NAME, seconds=_STEPS_GONE_SECONDS if wait else 0.0)

    def _watch(
        self, step: Step, directory: Path, watch: RoundWatch, owner: RunOwner
    ) -> tuple[bool, Hang | None]:
        """Wait for the end of the step: whether it was asked to stop, and who held it up if it was ended for that."""
        signalled = False
        first_report: float | None = None
        looked = time.monotonic()
        while step.process.poll() is None:
            time.sleep(_POLL_SECONDS)
            if not signalled and (reason := self._reason_to_stop()) is not None:
                signalled = self._ends_soon = True
                self.say(f"{reason} at {_now()}: asking the ranks to save and stop")
                self._ask_to_stop(reason, step)
            now = time.monotonic()
            if now > looked + _LOOK_SECONDS:
                looked = now
                # A file system that is away is no loss of the directory.
                with contextlib.suppress(OSError, WriteError):
                    owner.check()
                if self._calendar.answers:  # else each question lasts, and ranks could not be asked to stop
                    self._sentinels.renew()
                if first_report is None and any(directory.glob("rank-*.json")):
                    first_report = now
            if first_report is not None:
                if now - first_report > self.watch.leave_seconds:
                    self.say(
                        f"a rank ended {now - first_report:.0f} s ago and others did not: ending the step"
                    )
                    step.end()
                    return signalled, None
            elif watch.is_still():
                hang = watch.who_is_late()
                self.say(f"hang: {hang.text}; ending the round")
                step.end()
                return signalled, hang
        if not signalled and self._reason_to_stop() is not None:
            signalled = self._ends_soon = True  # the ranks got the same signal, and were faster
        return signalled, None

    def _reason_to_stop(self) -> str | None:
        """Why the ranks must save now; None while they need not."""
        left = self._calendar.seconds_left()
        near = left is not None and left <= self.stop_seconds()
        if not self._signals:
            return "the time limit is near" if near else None
        name = self._signals[0]
        if name != "SIGUSR1":
            return f"{name} from the scheduler"
        self._calendar.look()
        if self._calendar.now.preempted:
            return "the scheduler takes the nodes back"
        limit = self._calendar.now.limit_seconds
        if not near and limit is not None and limit <= self.lead_seconds + self.look_seconds:
            self._signals.clear()
            self.say(
                "SIGUSR1 came at once, because the job is shorter than its lead: stopping later, by the clock"
            )
            return None
        return "the time limit is near"

    def _ask_to_stop(self, reason: str, step: Step) -> None:
        asked = self._control.asked("stop")
        if asked is None or asked.again:  # what a person asked for stays: the run is not to come back
            try:
                self._control.ask("stop", reason, again=True)
            except WriteError as error:
                self.say(
                    f"the request to stop could not be written, so that the signal alone must do: {error}"
                )
        step.send(signal.SIGUSR1)

    def _wait(self, seconds: float) -> Decision | None:
        """Wait before the next round; what follows if it is not to come."""
        self.say(f"waiting {seconds:.0f} s")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            asked = self._control.asked("stop")
            if asked is not None and not asked.again:
                return None  # seen where rounds start
            if (reason := self._reason_to_stop()) is not None:
                self._calendar.look()
                now = self._calendar.now
                if not now.lives and now.restarts == self.job.restarts:
                    return Decision(Action.END, "ended while waiting", exit_code=143)
                self.say(f"{reason}: the next round is for the next allocation")
                again = now.restarts > self.job.restarts or self.chained
                return Decision(Action.LEAVE if again else Action.REQUEUE, reason)
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
