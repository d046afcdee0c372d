"""In the place of the batch shell: starts rounds, watches them, and does what follows on them.

Python takes this place with ``exec``, so SLURM's signals to the batch shell come here. The ranks of a round are one job
step. Stopping them is asked for by a file first, which rank 0 reads at every step, and by a signal second.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from megatron_salamandra.cluster.control import ControlFiles, JobNote
from megatron_salamandra.cluster.rank_report import (
    ROUND_DIR,
    first_failure,
    read_reports,
    read_word,
)
from megatron_salamandra.cluster.round_book import RoundBook
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
from megatron_salamandra.cluster.slurm import SlurmJob, ended_tasks
from megatron_salamandra.cluster.slurm_command import SlurmError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED, EXIT_USAGE

_POLL_SECONDS = 0.2
_ERRORS_KEPT = 200


@dataclass(frozen=True)
class Watch:
    """When a round counts as hung.

    Attributes:
        start_seconds: from its start to the first beat.
        beat_seconds: between two beats.
        leave_seconds: from the end of rank 0 to the end of all ranks.
    """

    start_seconds: float = 1800.0
    beat_seconds: float = 300.0
    leave_seconds: float = 60.0


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        last_step: the last step of which there is a record.
        saved_step: step of the newest complete checkpoint, 0 without one.
        done: whether every step of the run is trained and saved.
    """

    last_step: int
    saved_step: int
    done: bool


@dataclass
class Supervisor:
    """One job's part of a run.

    Args:
        job: the allocation.
        run_dir: of the run.
        command: what every rank runs, after ``srun`` and its options.
        progress: looks how far the run is.
        nodes_per_round: nodes that a round takes; what the job has beyond is spare.
        say: writes a line to the job's log.
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
    chained: bool = False
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self._control = ControlFiles(self.run_dir)
        self._book = RoundBook(self.run_dir)
        self._signals: list[str] = []
        self._asked_for_end = threading.Event()
        self._planned_end: float | None = None

    def run(self) -> int:
        """Rounds until the job has nothing more to do; returns its exit code."""
        history = self._book.read()
        excluded: tuple[str, ...] = ()
        with contextlib.suppress(SlurmError):
            # Before anybody ends the job, because SLURM then writes the end that it got.
            left = self.job.seconds_left()
            self._planned_end = None if left is None else time.time() + left
        self._control.note_job(JobNote(self.job.job, self._planned_end))
        self._control.forget("stop")  # of an earlier job
        with self._signals_kept():
            while True:
                number = len(history) + 1
                before = self.progress()
                if (asked := self._control.asked("stop")) is not None and not asked.again:
                    self._control.forget("stop")
                    self.say(f"not started: asked to stop by {asked.by}: {asked.reason}")
                    return EXIT_DONE
                if before.done:
                    self.say(f"the run is done at step {before.saved_step}: nothing to do")
                    return EXIT_DONE
                hosts = self._hosts(excluded)
                started = _now()
                self.say(
                    f"round {number}: {len(hosts)} nodes ({', '.join(hosts)}), from step {before.saved_step}"
                )
                outcome = self._round(number, hosts, before)
                decision = decide(history, outcome, self._allocation(), self.patience)
                history.append(Round(number, self.job.job, started, _now(), hosts, outcome, decision))
                self._book.append(history[-1])
                self.say(f"round {number} ended: {decision.reason}; {decision.action.value}")
                if decision.action is not Action.RESTART:
                    return self._leave(decision)
                excluded = decision.exclude
                if decision.wait_seconds:
                    self.say(f"waiting {decision.wait_seconds:.0f} s")
                    if self._asked_for_end.wait(decision.wait_seconds):
                        return self._leave(Decision(Action.END, "ended while waiting", exit_code=143))

    def _hosts(self, excluded: Sequence[str]) -> tuple[str, ...]:
        usable = [host for host in self.job.nodes if host not in excluded]
        return tuple(usable[: self.nodes_per_round])

    def _allocation(self) -> Allocation:
        try:
            fields = self.job.fields()
            return Allocation(
                self.job.job,
                self.nodes_per_round,
                self.job.answering(),
                self._seconds_left(),
                self.start_seconds,
                may_requeue=fields.get("Requeue", "1") == "1",
                chained=self.chained,
            )
        except SlurmError as error:
            self.say(f"{error}; going on with what is known")
            return Allocation(self.job.job, self.nodes_per_round, self.job.nodes, None, self.start_seconds)

    def _seconds_left(self) -> float | None:
        return None if self._planned_end is None else self._planned_end - time.time()

    def _leave(self, decision: Decision) -> int:
        if decision.action is Action.REQUEUE:
            # Requeueing sends SIGTERM to this process; there is nothing left to ask of the ranks.
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, signal.SIG_IGN)
            try:
                if decision.exclude:
                    self.job.exclude(decision.exclude)
                self.job.requeue()
            except SlurmError as error:
                self.say(
                    f"the job could not go back into the queue: {error}\n  submit the same command again"
                )
                return 1
            return EXIT_DONE
        return decision.exit_code

    def _round(self, number: int, hosts: tuple[str, ...], before: Progress) -> Outcome:
        directory = self._control.directory / f"round-{number:04d}"
        directory.mkdir(parents=True, exist_ok=True)
        errors: list[str] = []
        started = time.time()
        environment = {
            **self.environment,
            "MASTER_ADDR": hosts[0],
            # Another one each round: a rank that was cut off from an earlier round must not join this one. Below the
            # range from which the kernel hands out client ports.
            "MASTER_PORT": str(15000 + (int(self.job.job) + 997 * number) % 15000),
            ROUND_DIR: str(directory),
        }
        with _Step(self._srun(hosts), environment, errors) as step:
            hung = self._watch(step, directory, started)
        reports = read_reports(directory)
        asked = self._control.taken_up("stop")
        self._control.forget("stop")
        after = self.progress()
        codes = {report.rank: report.code for report in reports}
        code = codes.get(0)
        failure = first_failure(reports) or _from_srun(errors)
        again = asked.again if asked is not None else not read_word(directory)
        cause, suspects = self._cause(code, hung, failure, after, again=again)
        return Outcome(cause, code, before.saved_step, after.last_step, after.saved_step, failure, suspects)

    def _srun(self, hosts: tuple[str, ...]) -> list[str]:
        return [
            "srun",
            "--label",
            "--unbuffered",
            "--kill-on-bad-exit=1",
            # The step of an earlier round may not be over for SLURM: a host that lost its power never says so.
            "--overlap",
            f"--nodes={len(hosts)}",
            f"--ntasks={len(hosts) * self.job.tasks_per_node}",
            f"--ntasks-per-node={self.job.tasks_per_node}",
            f"--nodelist={','.join(hosts)}",
            *self.srun_options,
            *self.command,
        ]

    def _watch(self, step: _Step, directory: Path, started: float) -> bool:
        """Wait for the end of the step; True if it was ended because it hung."""
        told = 0
        rank_0_ended: float | None = None
        while step.process.poll() is None:
            time.sleep(_POLL_SECONDS)
            while told < len(self._signals):
                self._on_signal(self._signals[told], step)
                told += 1
            now = time.time()
            beat = self._control.last_beat()
            if beat is None or beat < started:
                late = now - started > self.watch.start_seconds
            else:
                late = now - beat > self.watch.beat_seconds
            if rank_0_ended is None and (directory / "rank-00000.json").exists():
                rank_0_ended = now
            if rank_0_ended is not None:
                if now - rank_0_ended > self.watch.leave_seconds:
                    self.say(
                        f"rank 0 ended {self.watch.leave_seconds:.0f} s ago and others did not: ending the step"
                    )
                    step.end()
                    return False
            elif late:
                self.say("no step for too long: ending the round")
                step.end()
                return True
        return False

    def _on_signal(self, name: str, step: _Step) -> None:
        reason = "the time limit is near" if name == "SIGUSR1" else f"{name} from the scheduler"
        self.say(f"{name} at {_now()}: asking the ranks to save and stop")
        self._control.ask("stop", reason, again=True)
        step.send(signal.SIGUSR1)

    def _cause(
        self, code: int | None, hung: bool, failure: RankFailure | None, after: Progress, *, again: bool
    ) -> tuple[Cause, tuple[str, ...]]:
        state, left = "RUNNING", self._seconds_left()
        lost: tuple[str, ...] = ()
        with contextlib.suppress(SlurmError):
            state = self.job.fields().get("JobState", "RUNNING")
            answering = self.job.answering()
            lost = tuple(host for host in self.job.nodes if host not in answering)
        ended_by_slurm = state not in ("RUNNING", "CONFIGURING")
        if code == EXIT_USAGE:
            return Cause.CONFIGURATION, ()
        if ended_by_slurm and (left is None or left > 0):
            return (Cause.CANCELLED if state == "CANCELLED" else Cause.PREEMPTED), ()
        if code == EXIT_DONE:
            return (Cause.DONE if after.done else Cause.REQUESTED), ()
        if code == EXIT_STOPPED:
            return (Cause.STOPPED if again else Cause.REQUESTED), ()
        if code is None and self._signals and failure is not None and failure.code == 128 + signal.SIGUSR1:
            return Cause.STOPPED, ()  # the signal came before Python had a handler: nothing was begun
        if lost:
            return Cause.NODE, lost
        if hung:
            return Cause.HANG, ()
        if left is not None and left <= 0:
            return Cause.LIMIT, ()
        return Cause.CRASH, ()

    @contextlib.contextmanager
    def _signals_kept(self) -> Iterator[None]:
        def remember(number: int, frame: FrameType | None) -> None:
            self._signals.append(signal.Signals(number).name)
            self._asked_for_end.set()

        before = {
            number: signal.signal(number, remember)
            for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is remember:
                    signal.signal(number, handler)


class _Step:
    """The srun of one round, its messages passed on and kept."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], errors: list[str]) -> None:
        self._errors = errors
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def __enter__(self) -> _Step:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.join(timeout=5.0)

    def send(self, number: signal.Signals) -> None:
        """To all ranks: srun hands it on."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self) -> None:
        """End all ranks, by force where need be."""
        self.send(signal.SIGTERM)
        try:
            self.process.wait(timeout=20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _pass_on(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            self._errors.append(line)
            del self._errors[:-_ERRORS_KEPT]


def _from_srun(errors: Sequence[str]) -> RankFailure | None:
    """The first task that srun says ended badly: one that was killed leaves no report of its own."""
    for host, tasks, how in ended_tasks("".join(errors)):
        first = re.match(r"\[?(\d+)", tasks)
        code = re.search(r"exit code (\d+)", how)
        rank = int(first[1]) if first else -1
        killed = 128 + (signal.SIGUSR1 if "User defined signal 1" in how else signal.SIGKILL)
        return RankFailure(rank, host, int(code[1]) if code else killed, how)
    return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
