"""Runs of the small model that are killed and started again, and what must be true of them at their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from kill_points import VARIABLE, KillPoint
from rank_jobs import SMALL_CONFIG
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from training_runs import tensors_of

from megatron_salamandra.run_directory import (
    CheckpointError,
    RunDirectory,
    complete_checkpoints,
    read_events,
    read_state,
    step_of,
    verify_checkpoint,
)

STEPS = 12
SAVE_EVERY = 3
VALIDATE_EVERY = 4
SETTINGS = (
    f"training.steps={STEPS}",
    "optimizer.warmup_steps=2",
    f"checkpoint.every_steps={SAVE_EVERY}",
    "checkpoint.keep_last=3",
    f"validation.every_steps={VALIDATE_EVERY}",
    "validation.samples_per_language=4",
    "logging.tensorboard=true",
    "logging.console_every_steps=3",
    "model.layers=2",
    "hangs.start_seconds=240",
    "hangs.step_seconds=60",
    "hangs.save_seconds=60",
    "hangs.validation_seconds=60",
)
GONE_SECONDS = 120.0
"""How long processes of a run that was killed may take to end."""
SIGN = "SALAMANDRA_TEST_RUN"
"""Variable by which every process of a run is found."""
HERE = Path(__file__).parent


class Broken(AssertionError):
    """Something that must be true of a run is not."""


def command(launcher: str, blend: Path, run: Path, *overrides: str) -> list[str]:
    """``train`` is ``salamandra train``, ``torchrun`` is what its name says; two ranks each."""
    given = [str(SMALL_CONFIG), f"data.blend={blend}", f"run_dir={run}", *SETTINGS, *overrides]
    if launcher == "train":
        return [sys.executable, "-m", "megatron_salamandra.cli", "train", *given, "--ranks=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*torchrun, "-m", "megatron_salamandra.train", *given]


def start(arguments: Sequence[str], run: Path, point: KillPoint | None, seconds: float = 600.0) -> int:
    """Run a command to its end, and wait for all processes of the run; the exit code.

    Raises:
        Broken: it does not end, or a process stays behind.
    """
    environment = {**os.environ, SIGN: str(run), "OMP_NUM_THREADS": "1"}
    if point is not None:
        environment[VARIABLE] = point.to_text()
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(HERE / "in_every_process"), os.environ.get("PYTHONPATH", "")]
        ).rstrip(os.pathsep)
    run.parent.mkdir(parents=True, exist_ok=True)
    with (run.parent / f"{run.name}.log").open("ab") as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            end_processes(run)
            process.wait()
            raise Broken(f"the command has not ended after {seconds:.0f} s") from error
    deadline = time.monotonic() + GONE_SECONDS
    while left := processes_of(run):
        if time.monotonic() > deadline:
            described = end_processes(run)
            raise Broken(f"{len(left)} processes are left behind: {described}")
        time.sleep(0.1)
    return code


def processes_of(run: Path) -> list[int]:
    """Living processes that were started for a run, whoever their parent is now."""
    sign = f"{SIGN}={run}".encode()
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            if sign not in (path / "environ").read_bytes().split(b"\0"):
                continue
            if (path / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def end_processes(run: Path) -> str:
    """Kill what is left of a run, and say what it was."""
    described = []
    for pid in processes_of(run):
        try:
            described.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-120:])
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    return "; ".join(described)


def newest_intact_step(run: Path) -> int:
    """Step of the newest checkpoint that is as it was written; 0 if there is none."""
    for directory in reversed(complete_checkpoints(RunDirectory(run).checkpoints)):
        try:
            verify_checkpoint(directory)
        except CheckpointError:
            continue
        return step_of(directory)
    return 0


Start = Callable[[KillPoint | None], int]


def disturb(start_again: Start, run: Path, points: Sequence[KillPoint]) -> dict[str, Any]:
    """Start a run, killed at each point in turn, and once more in peace; what was seen on the way.

    Raises:
        Broken: a start went on from another step than the newest intact checkpoint's, or could not.
    """
    codes, reached, repeated = [], 0, []
    for point in [*points, None]:
        newest = newest_intact_step(run)
        before = last_recorded_step(run)
        starts = len(_starts(run))
        code = start_again(replace(point, within=str(run)) if point is not None else None)
        codes.append(code)
        reached += point is not None and point.reached
        if point is None and code:
            raise Broken(f"the start in peace ended with {code}")
        for event in _starts(run)[starts:]:
            step = event.details.get("step", 0) if event.kind == "resume" else 0
            if step != newest:
                raise Broken(f"went on from step {step}, and step {newest} was saved and intact")
            repeated.append(max(0, before - newest))
    return {"codes": codes, "reached": reached, "repeated": max(repeated, default=0)}


def _starts(run: Path) -> list[Any]:
    return [event for event in read_events(RunDirectory(run).events) if event.kind in ("start", "resume")]


def last_recorded_step(run: Path) -> int:
    """The last step in ``metrics.jsonl``; 0 without one."""
    return max((entry["step"] for entry in _lines(RunDirectory(run).metrics)), default=0)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def differences(run: Path, undisturbed: Path) -> list[str]:
    """What tells a run that was killed from one that was not, and should not; nothing if all is well."""
    found = []
    ours, theirs = RunDirectory(run), RunDirectory(undisturbed)
    last, expected = (directory.checkpoints / f"step-{STEPS:08d}" for directory in (ours, theirs))
    try:
        verify_checkpoint(last)
        found += differing_tensors(tensors_of(last), tensors_of(expected))
        state, other = read_state(last).values, read_state(expected).values
        found += [f"state.json: {key}" for key in {**state, **other} if state.get(key) != other.get(key)]
    except CheckpointError as error:
        found.append(str(error))
    metrics, wanted = _lines(ours.metrics), _lines(theirs.metrics)
    steps = [entry.get("step") for entry in metrics]
    if steps != list(range(1, STEPS + 1)):
        found.append(f"metrics.jsonl has steps {steps}")
    for name in ("loss", "grad_norm", "lr", "tokens", "languages"):
        if [entry.get(name) for entry in metrics] != [entry.get(name) for entry in wanted]:
            found.append(f"metrics.jsonl: {name}")
    scores = [(entry["step"], entry["language"], entry["loss"]) for entry in _lines(ours.validation)]
    if scores != [(entry["step"], entry["language"], entry["loss"]) for entry in _lines(theirs.validation)]:
        found.append(f"validation.jsonl has {[score[:2] for score in scores]}")
    points = curve(ours.tensorboard, "train/loss")
    if [step for step, _ in points] != list(range(1, STEPS + 1)):
        found.append(f"tensorboard/ has steps {[step for step, _ in points]}")
    found += twice_told(run)
    # A deletion that was cut short is completed by the next save.
    seen = (path.name for path in ours.checkpoints.iterdir())
    left = [name for name in seen if not name.startswith(("step-", ".partial-deleted-"))]
    if left:
        found.append(f"checkpoints/ holds {', '.join(left)}")
    return found


def twice_told(run: Path) -> list[str]:
    """Events of steps that ``events.jsonl`` does not tell exactly once."""
    events = read_events(RunDirectory(run).events)
    told = Counter(
        (event.kind, event.details["step"])
        for event in events
        if event.kind in ("checkpoint", "skip", "incident", "roll_back", "phase")
    )
    found = [
        f"events.jsonl tells {kind} of step {step} {n} times" for (kind, step), n in told.items() if n > 1
    ]
    saved = {step for kind, step in told if kind == "checkpoint"}
    saved |= {event.details["step"] for event in events if event.details.get("what") == "checkpoint"}
    return found + [
        f"events.jsonl does not tell what became of the checkpoint of step {step}"
        for step in range(SAVE_EVERY, STEPS + 1, SAVE_EVERY)
        if step not in saved
    ]


def curve(directory: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a curve, as TensorBoard shows them."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return (
        [(item.step, item.value) for item in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []
    )


def differing_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Keys of tensors that are not equal to the bit."""
    keys = found.keys() ^ expected.keys()
    keys |= {key for key in found.keys() & expected.keys() if not torch.equal(found[key], expected[key])}
    return [f"tensor {key}" for key in sorted(keys)]
