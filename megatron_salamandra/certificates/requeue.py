"""A drill on the user's own cluster: a small job gets the signal before its time limit, comes back, and ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.certificates.proof import Proof
from megatron_salamandra.certificates.small_runs import losses, make_blend, small_run
from megatron_salamandra.cluster import LaunchOptions, RoundBook, launch
from megatron_salamandra.cluster.slurm_command import answer

_STEPS = 400
_SIGNAL_AT = 5
_POLL_SECONDS = 2.0
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
    config, *overrides = small_run(blend, run, f"training.steps={_STEPS}", *drill.overrides)
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
    say(f"  job {made.job}; log {str(made.script.log).replace('%j', made.job)}")
    deadline = time.monotonic() + drill.seconds
    ended = _wait(
        lambda: len(losses(run)) >= _SIGNAL_AT or _state(made.job) in _OVER, made.job, deadline, say
    )
    if not ended or _state(made.job) in _OVER:
        return _failed(f"the job did not train: {_state(made.job)}", made.job, run)
    say("  training: sending the signal that comes before a time limit")
    answer(["scancel", "--signal=USR1", "--batch", made.job])
    if not _wait(lambda: _state(made.job) in _OVER, made.job, deadline, say):
        return _failed(f"the job is not over after {drill.seconds:.0f} s", made.job, run)
    causes = [entry.outcome.cause.value for entry in RoundBook(run).read()]
    steps = [step for step, _ in losses(run)]
    once = steps == list(range(1, _STEPS + 1))
    figures = {"job": made.job, "rounds": causes, "steps": len(steps), "every_step_once": once}
    passed = _state(made.job) == "COMPLETED" and causes == ["stopped", "done"] and once
    return Proof(passed, f"job {made.job}: rounds {', '.join(causes)}; {len(steps)} steps", figures)


def _failed(message: str, job: str, run: Path) -> Proof:
    causes = [entry.outcome.cause.value for entry in RoundBook(run).read()]
    return Proof(False, f"{message}; job {job} is left as it is", {"job": job, "rounds": causes})


def _state(job: str | None) -> str:
    for field in answer(["scontrol", "show", "job", str(job), "--oneliner"]).split():
        if field.startswith("JobState="):
            return field.partition("=")[2]
    return "unknown"


def _wait(true: Callable[[], bool], job: str, deadline: float, say: Callable[[str], None]) -> bool:
    """Look again and again, and tell the job's state now and then; False if it is too late."""
    told = time.monotonic()
    while not true():
        if time.monotonic() > deadline:
            return False
        if time.monotonic() - told > _TOLD_SECONDS:
            told = time.monotonic()
            say(f"  job {job}: {_state(job)}")
        time.sleep(_POLL_SECONDS)
    return True
