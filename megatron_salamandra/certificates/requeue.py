"""A drill on the user's own cluster: a small job gets the signal before its time limit, comes back, and ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.certificates.proof import Proof
from megatron_salamandra.certificates.small_runs import losses, make_blend, small_run
from megatron_salamandra.cluster import LaunchOptions, RoundBook, SlurmError, launch, load_profile
from megatron_salamandra.cluster.slurm_command import answer

_STEPS = 1000
"""Enough that the run is still under way when its first steps are seen: a step takes 10 to 100 ms."""
_SIGNAL_AT = 5
_POLL_SECONDS = 1.0
_TOLD_SECONDS = 30.0
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")


@dataclass(frozen=True)
class Drill:
    """What is submitted.

    Attributes:
        cluster: profile's name or file.
        nodes: of the job.
        account, qos: as for ``salamandra launch``.
        sbatch: further options, ``NAME=VALUE``.
        seconds: until the drill counts as failed, waiting in the queue included.
    """

    cluster: str
    nodes: int = 1
    account: str | None = None
    qos: str | None = None
    sbatch: tuple[str, ...] = ()
    time: str = "30"
    seconds: float = 3600.0
    overrides: tuple[str, ...] = ()


def prove_requeue(directory: Path, drill: Drill, say: Callable[[str], None]) -> Proof:
    """Submit, signal once the run trains, and wait for its end: two rounds, every step once."""
    blend, run = make_blend(directory / "data"), directory / "run"
    shutil.rmtree(run, ignore_errors=True)
    ranks = drill.nodes * load_profile(drill.cluster).tasks_per_node
    sizes = (f"training.steps={_STEPS}", f"training.global_batch_size={_batch_size(ranks)}")
    config, *overrides = small_run(blend, run, *sizes, *drill.overrides)
    made = launch(
        LaunchOptions(
            config=config,
            overrides=tuple(overrides),
            cluster=drill.cluster,
            nodes=drill.nodes,
            account=drill.account,
            qos=drill.qos,
            time=drill.time,
            sbatch=drill.sbatch,
        )
    )
    assert made.job is not None  # not a dry run
    watch = _JobWatch(made.job, time.monotonic() + drill.seconds, say)
    say(f"  job {made.job}; log {str(made.script.log).replace('%j', made.job)}")
    trains = watch.wait(lambda: len(losses(run)) >= _SIGNAL_AT)
    if not trains:
        return _failed(f"the job did not train within {drill.seconds:.0f} s: {watch.state}", made.job, run)
    if watch.state in _OVER:
        return _failed(f"the job was over before the signal could be sent: {watch.state}", made.job, run)
    say("  training: sending the signal that comes before a time limit")
    answer(["scancel", "--signal=USR1", "--batch", made.job])
    if not watch.wait(lambda: False):
        done = f"{len(losses(run))} of {_STEPS} steps"
        text = f"the job is not over after {drill.seconds:.0f} s: {watch.state}, {done}"
        return _failed(text, made.job, run)
    return _judged(watch.state, made.job, run)


def _batch_size(ranks: int) -> int:
    """Sequences of a step: at least four, and as many for each rank."""
    return ranks * -(-4 // ranks)


def _judged(state: str, job: str, run: Path) -> Proof:
    causes = _causes(run)
    steps = [step for step, _ in losses(run)]
    once = steps == list(range(1, _STEPS + 1))
    passed = state == "COMPLETED" and causes == ["stopped", "done"] and once
    message = f"job {job}: {state}; rounds: {', '.join(causes) or 'none'}; {len(steps)} steps"
    if not once:
        message += f", where each of {_STEPS} should be there once"
    figures = {
        "job": job,
        "state": state,
        "rounds": causes,
        "steps": len(steps),
        "every_step_once": once,
    }
    return Proof(passed, message, figures)


def _failed(message: str, job: str, run: Path) -> Proof:
    return Proof(False, f"{message}; job {job} is left as it is", {"job": job, "rounds": _causes(run)})


def _causes(run: Path) -> list[str]:
    return [entry.outcome.cause.value for entry in RoundBook(run).read()]


class _JobWatch:
    """Looks at a job again and again, and tells its state now and then."""

    def __init__(self, job: str, deadline: float, say: Callable[[str], None]) -> None:
        self._job, self._deadline, self._say = job, deadline, say
        self.state = "unknown"

    def wait(self, true: Callable[[], bool]) -> bool:
        """Wait until something is true or the job is over; False if it is too late."""
        told = time.monotonic()
        while True:
            self.state = self._ask() or self.state
            if true() or self.state in _OVER:
                return True
            if time.monotonic() > self._deadline:
                return False
            if time.monotonic() - told > _TOLD_SECONDS:
                told = time.monotonic()
                self._say(f"  job {self._job}: {self.state}")
            time.sleep(_POLL_SECONDS)

    def _ask(self) -> str:
        """State of the job; empty if the controller does not answer now."""
        try:
            said = answer(["scontrol", "show", "job", self._job, "--oneliner"])
        except SlurmError:
            return ""
        fields = (field.partition("=") for field in said.split())
        return next((value for name, _, value in fields if name == "JobState"), "")
