"""Training whose saves meet faults: which, on which rank, in which stage, at which step."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

KILL, STOP, VANISH = "kill", "stop", "vanish"
Fault = tuple[int, str, str | int, int]
"""Rank, name of the stage, what happens (a name above, or an errno), and how many attempts it happens to."""
ALWAYS = 1_000_000
_STEP = re.compile(r"step-(\d{8})")


def train_with_faulty_saves(overrides: Sequence[str], faults: dict[int, Fault], at_end: bool) -> int:
    """Train the small model, each save with the fault of its step.

    Args:
        at_end: whether the fault comes when the operation is done, instead of before it.
    """
    from rank_jobs import train

    from megatron_salamandra.checkpoint.disk import Disk, Stage

    left = {step: fault[3] for step, fault in faults.items()}
    lock = threading.Lock()

    def act(self: Disk, stage: Stage, path: Path, action: Callable[[], Any]) -> Any:
        step = int(_STEP.findall(str(path))[-1])
        rank, where, what, _ = faults.get(step, (-1, "", "", 0))
        if rank != int(os.environ["RANK"]) or where != stage.name:
            return action()
        with lock:
            left[step] -= 1
            if left[step] < 0:
                return action()
        if at_end:
            action()
        return befall(what, path)

    def befall(what: str | int, path: Path) -> None:
        if what == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == VANISH:
            partial = next(p for p in (path, *path.parents) if p.name.startswith((".partial-step", "step-")))
            shutil.rmtree(partial, ignore_errors=True)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        else:
            raise OSError(what, os.strerror(int(what)), str(path))

    # Processes of saves are forked from this one and inherit the fault.
    with mock.patch.object(Disk, "act", act):
        return train(overrides)


def train_with_a_dead_disk(overrides: Sequence[str], step: int) -> int:
    """Train the small model; the save of ``step`` dies at its manifest, and from then on the disk does not answer.

    The training process may not ask the disk then.
    """
    from megatron_salamandra.checkpoint import LocalCopies, writer

    partial, rank = f"step-{step:08d}", os.getpid()

    def dead(real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **more: Any) -> Any:
            if not any(partial in str(argument) for argument in arguments):
                return real(*arguments, **more)
            assert os.getpid() != rank, f"{real.__name__} would stop training"
            signal.pause()

        return act

    with (
        mock.patch.object(writer, "_CLEAN_UP_SECONDS", 0.5),
        mock.patch.object(writer, "drop_partial", dead(writer.drop_partial)),
        mock.patch.object(writer, "_size_if_complete", dead(writer._size_if_complete)),
        mock.patch.object(Path, "exists", dead(Path.exists)),
        mock.patch.object(LocalCopies, "drop", dead(LocalCopies.drop)),
    ):
        return train_with_faulty_saves(overrides, {step: (0, "MANIFEST", KILL, ALWAYS)}, at_end=False)


def train_with_a_wrong_plan(overrides: Sequence[str], where: str) -> int:
    """Train the small model; the first plan fails on rank 0 alone.

    Args:
        where: function of the planner that fails.
    """
    from rank_jobs import train

    from megatron_salamandra.checkpoint import save_plan

    real, calls = getattr(save_plan, where), []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        result = real(*arguments)
        if len(calls) == 1 and os.environ["RANK"] == "0":
            raise ValueError("a tensor would be written twice")
        return result

    with mock.patch.object(save_plan, where, fail):
        return train(overrides)


def train_watching_plans(overrides: Sequence[str]) -> int:
    """Train the small model, and see that what a save's processes read is held while they read it, and no longer."""
    import dataclasses
    import gc
    import weakref

    from rank_jobs import train

    from megatron_salamandra.checkpoint import writer

    plans: list[weakref.ref[Any]] = []
    on_host, advance = writer._on_host, writer.CheckpointWriter._advance

    def copied(plan: Any) -> Any:
        copy = dataclasses.replace(on_host(plan))
        plans.append(weakref.ref(copy))
        return copy

    def look(self: Any, save: Any, patience: float) -> Any:
        gc.collect()
        assert save.completing or plans[-1]() is not None
        return advance(self, save, patience)

    with (
        mock.patch.object(writer, "_on_host", copied),
        mock.patch.object(writer.CheckpointWriter, "_advance", look),
    ):
        code = train(overrides)
    gc.collect()
    return code if plans and not any(plan() for plan in plans) else 99


def train_with_commands(overrides: Sequence[str], commands: dict[int, list[str]]) -> int:
    """Train the small model, and after a step, before its save, run the command of that step on rank 0."""
    import subprocess

    from rank_jobs import SMALL_CONFIG

    from megatron_salamandra.train import main
    from megatron_salamandra.training import Callback, StepReport, Trainer, TrainerParts

    class Commands(Callback):
        def after_step(self, report: StepReport) -> None:
            if self.run.is_writer and report.step in commands:
                subprocess.run(commands[report.step], check=True)

    parts = TrainerParts(callbacks=(Commands(),))
    return main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))
