"""Giving stages to an executor, and finding out what became of them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.progress import ProgressLine
from salamandra_data.errors import DataError
from salamandra_data.execution.settings import (
    ExecutorSettings,
    LocalSettings,
    RaySettings,
    SlurmSettings,
)
from salamandra_data.execution.stage import Outcome, Stage, StageRecord
from salamandra_data.execution.worker_pool import Counters, WorkerPool

if TYPE_CHECKING:
    from salamandra_data.execution.stage_step import StageStep

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


def run_stages(stages: Sequence[Stage], settings: ExecutorSettings, work: Path) -> Outcome:
    """Run ``stages`` one after the other; tasks that ``work`` knows to be complete are passed over.

    Local and Ray runs are waited for. Under SLURM all stages are submitted at once, each to start when the one before
    it ended well, and the call returns (or waits, if the settings say so, and submits again what failed); while these
    jobs are in the queue, a second call submits nothing.

    Args:
        stages: in their order; names differ.
        settings: which executor, and how.
        work: directory on a file system that all machines share, made for this very run: it holds, by stage, which
            tasks are complete, logs, and the messages of failed tasks. The same stages must come with it each time, and
            two calls must not use it at once.
    Raises:
        DataError: a task failed (its message is given), the executor cannot be used here, ``work`` is of stages cut
            into other tasks, or SLURM jobs of this run are in the queue and another executor is asked for.
    """
    settings.check()
    for stage in stages:
        if not _NAME.fullmatch(stage.name) or stage.tasks < 1:
            raise ValueError(f"stage {stage.name!r} with {stage.tasks} tasks")
    if importlib.util.find_spec("datatrove") is None:
        raise DataError("--executor needs the package datatrove\n  pip install 'megatron-salamandra[data]'")
    _check_cut(stages, work.absolute())
    steps = _steps(stages, work.absolute())
    if not any(step.record.unfinished() for step in steps):
        return Outcome(done=True)
    if isinstance(settings, SlurmSettings):
        from salamandra_data.execution.slurm import submit, submit_and_wait

        return (submit_and_wait if settings.wait else submit)(steps, settings, work.absolute())
    _refuse_while_queued(work.absolute())
    if isinstance(settings, RaySettings):
        with _ray_cluster(settings):
            _run_in_turn(steps, settings)
    else:
        _run_in_turn(steps, settings)
    return Outcome(done=True)


def _check_cut(stages: Sequence[Stage], work: Path) -> None:
    """Refuse another number of tasks: those that are complete would stand for other work than was done."""
    file, cut = work / "tasks.json", {stage.name: stage.tasks for stage in stages}
    if not file.is_file():
        atomic_write_bytes(file, json.dumps(cut).encode())
        return
    before = json.loads(file.read_text())
    for name, tasks in cut.items():
        if before.get(name) != tasks:
            raise DataError(
                f"{work}: the stage {name} was begun with {before.get(name)} tasks and cannot go on with {tasks}\n"
                "  give the same --tasks as before, or remove the directory to start again"
            )


def _steps(stages: Sequence[Stage], work: Path) -> list[StageStep]:
    from salamandra_data.execution.stage_step import StageStep

    steps: list[StageStep] = []
    before: StageRecord | None = None
    for stage in stages:
        record = StageRecord.of(stage, work)
        steps.append(StageStep(stage, record, before))
        before = record
    return steps


def _refuse_while_queued(work: Path) -> None:
    from salamandra_data.execution.slurm import JobRecord

    if queued := JobRecord(work).in_queue():
        numbers_text = ", ".join(number for numbers in queued.values() for number in numbers)
        raise DataError(
            f"{work}: SLURM jobs of this run are pending or running: {numbers_text}\n"
            f"  wait until they end, or cancel them (scancel {numbers_text.replace(',', '')}) and run the command again"
        )


def _run_in_turn(steps: Sequence[StageStep], settings: LocalSettings | RaySettings) -> None:
    for step in steps:
        failure: Exception | None = None
        try:
            if isinstance(settings, LocalSettings):
                _run_here(step, settings.workers)
            else:
                _ray_executor(step, settings).run()
        except Exception as error:
            failure = error
        if unfinished := step.record.unfinished():
            raise DataError(
                f"{step.record.failure(unfinished, failure)}\n  run the same command again to do what is left"
            ) from failure
        if failure is not None:
            raise failure


def _run_here(step: StageStep, workers: int) -> None:
    """What is left of a stage, by a local executor.

    Its own ``run`` would deal tasks to a pool that waits for ever for a worker that was killed; ours raises.
    """
    from datatrove.executor.local import LocalPipelineExecutor

    tasks = step.record.unfinished()
    if not tasks:
        return
    executor = LocalPipelineExecutor(
        [step], tasks=step.stage.tasks, workers=workers, logging_dir=str(step.record.directory)
    )
    pool = WorkerPool(min(workers, len(tasks)), executor)
    counters = pool.counters

    def tasks_done(seconds: float) -> list[str]:
        return [f"{counters.units():,} of {len(tasks):,} tasks"]

    with ProgressLine(f"{step.stage.name:<16}", counters.units, len(tasks), tasks_done):
        for _ in pool.run(_run_task, tasks):
            pass


def _run_task(executor: Any, counters: Counters, task: int) -> None:
    """One task, logged and marked as complete by the executor; its log goes to a file, and not to the terminal too."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        executor._run_for_rank(task)
    counters.add(0, 0, 1)


def _ray_executor(step: StageStep, settings: RaySettings) -> Any:
    from datatrove.executor.ray import RayPipelineExecutor

    return RayPipelineExecutor(
        [step],
        tasks=step.stage.tasks,
        workers=settings.workers or -1,
        cpus_per_task=settings.cpus_per_task,
        mem_per_cpu_gb=settings.memory_per_cpu_gb,
        logging_dir=str(step.record.directory),
    )


@contextmanager
def _ray_cluster(settings: RaySettings) -> Iterator[None]:
    """Be connected while the block runs; a connection that was there before stays.

    Raises:
        DataError: Ray is not installed, does not answer, or has no room for a single task on this machine.
    """
    try:
        import ray
    except ImportError as error:
        raise DataError(
            "--executor ray needs the package ray\n  pip install 'megatron-salamandra[data,ray]'"
        ) from error
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=settings.address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DataError(f"--ray-address {settings.address}: no Ray cluster answers: {error}") from error
    try:
        if settings.address is None:  # a cluster elsewhere may yet grow
            _check_room(settings, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def _check_room(settings: RaySettings, there: Mapping[str, float]) -> None:
    """Refuse tasks that would wait for ever."""
    cpus, memory_gb = there.get("CPU", 0), there.get("memory", 0) / 2**30
    if cpus < settings.cpus_per_task or memory_gb < settings.cpus_per_task * settings.memory_per_cpu_gb:
        raise DataError(
            f"--cpus-per-task {settings.cpus_per_task}, --memory-per-cpu {settings.memory_per_cpu_gb:g}: Ray has "
            f"{cpus:g} cores and {memory_gb:.1f} GiB for tasks on this machine\n"
            "  ask for less, or name a cluster with --ray-address"
        )
