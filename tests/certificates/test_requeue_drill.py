"""The drill of a job that gets its signal and comes back, on a SLURM whose jobs do what a test says."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from megatron_salamandra.certificates import Certificate, Drill, certify, requeue
from megatron_salamandra.cluster import (
    Action,
    Cause,
    Decision,
    LaunchOptions,
    Outcome,
    Round,
    RoundBook,
    load_profile,
)
from megatron_salamandra.run_directory import MetricsLog, RunDirectory

STEPS = 20
STOPPED_AT = 8
_PROGRAMS = {
    "sbatch": """
case " $* " in *" --test-only "*) exit 0 ;; esac
echo "${{@: -1}}" > {home}/submitted.new && mv {home}/submitted.new {home}/submitted
echo 4242
""",
    "scancel": 'echo "$*" > {home}/signalled.new && mv {home}/signalled.new {home}/signalled\n',
    "scontrol": """
[[ "$1 $2 $3" == "show job 4242" ]] || exit 1
touch {home}/asked
[[ ! -e {home}/away ]] || {{ rm {home}/away; echo "slurm_load_jobs error: Unable to contact" >&2; exit 1; }}
echo "JobId=4242 JobName=run JobState=$(cat {home}/state) Reason=None"
""",
}


class JobOfATest:
    """The cluster, whose one job is a function of this object."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name, text in _PROGRAMS.items():
            program = home / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text("#!/bin/bash\n" + text.format(home=home))
            program.chmod(program.stat().st_mode | stat.S_IEXEC)
        self.set_state("PENDING")
        self._over = threading.Event()
        self.seconds = 0.0
        """What the drill takes for the time: it stands still until a job lets it pass."""

    @contextmanager
    def running(self, job: Callable[[JobOfATest], None]) -> Iterator[None]:
        thread = threading.Thread(target=self._start, args=(job,), daemon=True)
        thread.start()
        yield
        self._over.set()
        thread.join()

    def _start(self, job: Callable[[JobOfATest], None]) -> None:
        if self.wait_for("submitted"):
            job(self)

    def wait_for(self, name: str) -> bool:
        end = time.monotonic() + 120
        while not (self.home / name).exists():
            if self._over.is_set() or time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    @property
    def run(self) -> Path:
        return Path((self.home / "submitted").read_text().strip()).parents[2]

    def set_state(self, state: str) -> None:
        (self.home / "state.new").write_text(state)
        (self.home / "state.new").rename(self.home / "state")

    def train(self, first: int, last: int, cause: Cause | None) -> None:
        """A round over these steps; without a cause it goes on."""
        self.set_state("RUNNING")
        for step in range(first, last + 1):
            MetricsLog(RunDirectory(self.run).metrics).append(step, {"loss": 5.0 - step / 100})
        if cause is not None:
            at = "2026-01-02T03:04:05+00:00"
            outcome = Outcome(cause, 0, first_step=first - 1, last_step=last, saved_step=last)
            action = Action.END if cause is Cause.DONE else Action.REQUEUE
            number = len(RoundBook(self.run).read()) + 1
            decision = Decision(action, cause.value)
            RoundBook(self.run).append(Round(number, "4242", at, at, ("node1",), outcome, decision))


def stop(job: JobOfATest) -> None:
    """The first half of every drill."""
    job.train(1, STOPPED_AT - 2, None)
    job.wait_for("signalled")
    job.train(STOPPED_AT - 1, STOPPED_AT, Cause.STOPPED)
    job.set_state("PENDING")


def comes_back(job: JobOfATest) -> None:
    stop(job)
    (job.home / "away").touch()  # a controller that does not answer once is no end
    job.train(STOPPED_AT + 1, STEPS, Cause.DONE)
    job.set_state("COMPLETED")


def never_comes_back(job: JobOfATest) -> None:
    stop(job)
    job.seconds = 3601.0


def repeats_steps(job: JobOfATest) -> None:
    stop(job)
    job.train(STOPPED_AT - 1, STEPS, Cause.DONE)
    job.set_state("COMPLETED")


def leaves_steps_out(job: JobOfATest) -> None:
    stop(job)
    job.train(STOPPED_AT + 2, STEPS, Cause.DONE)
    job.set_state("COMPLETED")


def is_deaf(job: JobOfATest) -> None:
    job.train(1, STOPPED_AT, None)
    job.wait_for("signalled")
    job.train(STOPPED_AT + 1, STEPS, Cause.DONE)
    job.set_state("COMPLETED")


def dies_of_the_signal(job: JobOfATest) -> None:
    job.train(1, STOPPED_AT, None)
    job.wait_for("signalled")
    job.train(STOPPED_AT + 1, STOPPED_AT + 1, Cause.CRASH)
    job.set_state("FAILED")


def never_starts(job: JobOfATest) -> None:
    job.wait_for("asked")  # the drill has taken the time
    job.seconds = 3601.0


def fails_at_once(job: JobOfATest) -> None:
    job.set_state("NODE_FAIL")


@pytest.fixture
def drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Certificate]:
    """Runs the drill with a job; returns its certificate."""
    cluster = JobOfATest(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(requeue, "_STEPS", STEPS)
    monkeypatch.setattr(requeue, "_POLL_SECONDS", 0.05)

    clock = SimpleNamespace(monotonic=lambda: cluster.seconds, sleep=time.sleep)
    monkeypatch.setattr(requeue, "time", clock)

    def run(job: Callable[[JobOfATest], None]) -> Certificate:
        with cluster.running(job):
            (made,) = certify(["requeue"], tmp_path / "out", Drill("generic"), lambda line: None)
        return made

    return run


def test_a_job_that_comes_back_passes_and_was_told_as_before_a_time_limit(
    drill: Callable[..., Certificate], tmp_path: Path
) -> None:
    made = drill(comes_back)
    assert made.proof.passed, made.proof.message
    assert made.proof.figures["rounds"] == ["stopped", "done"]
    assert (tmp_path / "signalled").read_text().split() == ["--signal=USR1", "--batch", "4242"]


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (repeats_steps, "each of 20 should be there once"),
        (leaves_steps_out, "each of 20 should be there once"),
        (is_deaf, "rounds: done;"),
        (dies_of_the_signal, "FAILED; rounds: crash"),
        (fails_at_once, "over before the signal could be sent: NODE_FAIL"),
    ],
)
def test_a_job_that_does_something_else_fails(
    drill: Callable[..., Certificate], job: Callable[[JobOfATest], None], told: str
) -> None:
    made = drill(job)
    assert not made.proof.passed
    assert told in made.proof.message


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (
            never_comes_back,
            "the job is not over after 3600 s: PENDING, 8 of 20 steps; job 4242 is left as it is",
        ),
        (never_starts, "the job did not train within 3600 s: PENDING; job 4242 is left as it is"),
    ],
)
def test_a_job_that_is_waited_for_too_long_fails(
    drill: Callable[..., Certificate], job: Callable[[JobOfATest], None], told: str
) -> None:
    made = drill(job)
    assert not made.proof.passed
    assert made.proof.message == told


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 6, 7, 16])
def test_the_batch_can_be_shared_among_any_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: int
) -> None:
    class Seen(Exception):
        pass

    sizes: list[int] = []

    def launch(options: LaunchOptions) -> None:
        given = dict(override.split("=", 1) for override in options.overrides)
        sizes.append(int(given["training.global_batch_size"]))
        raise Seen

    monkeypatch.setattr(requeue, "launch", launch)
    with pytest.raises(Seen):
        requeue.prove_requeue(tmp_path, Drill("generic", nodes=nodes), lambda line: None)
    assert sizes[0] >= 4
    assert sizes[0] % (nodes * load_profile("generic").tasks_per_node) == 0


def test_a_refused_job_fails_with_the_reason(drill: Callable[..., Certificate], tmp_path: Path) -> None:
    (tmp_path / "bin/sbatch").write_text("#!/bin/bash\necho 'sbatch: error: Invalid account' >&2; exit 1\n")
    made = drill(never_starts)
    assert not made.proof.passed
    assert "Invalid account" in made.proof.message
